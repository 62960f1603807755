"""What optax lacks, as optax transformations; and optimizers as dynamical systems."""
