"""What happens to a model after training, the same for every pipeline."""
