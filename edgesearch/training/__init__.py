"""What trainings share: states, optimizers, randomness, devices, logs."""
