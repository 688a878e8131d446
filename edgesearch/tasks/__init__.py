"""Tasks with labels: heads, losses, metrics and fine-tuning."""
