"""One thread for torch: the tests are small, and others may be at work on the same cores."""

import torch

torch.set_num_threads(1)
