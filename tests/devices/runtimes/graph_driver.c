/* Stands for the NVIDIA driver's library: the functions for CUDA graphs, and what is left over. */
#include <stdint.h>
#include <stdlib.h>

static int capturing, left, launched;

int cuStreamBeginCapture_v2(void *stream, int mode) {
    if (!stream || mode != 1 || capturing) return 1;
    capturing = 1;
    return 0;
}
int cuStreamEndCapture(void *stream, void **graph) {
    if (!capturing) return 1;
    capturing = 0;
    if (getenv("REFUSE_CAPTURE")) { *graph = 0; return 901; }
    *graph = malloc(1), left++;
    return 0;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, uint64_t flags) {
    if (getenv("REFUSE_INSTANCE") || !graph || flags) return 801;
    *executable = malloc(1), left++;
    return 0;
}
int cuGraphLaunch(void *executable, void *stream) { return executable && stream ? launched++, 0 : 400; }
int cuGraphExecDestroy(void *executable) { free(executable); left--; return 0; }
int cuGraphDestroy(void *graph) { free(graph); left--; return 0; }
int cuGetErrorString(int error, const char **text) {
    *text = error == 801 ? "operation not supported" : error == 901 ? "capture invalidated" : "else";
    return 0;
}
int is_capturing(void) { return capturing; }
int count_left(void) { return left; }
int count_launched(void) { return launched; }
