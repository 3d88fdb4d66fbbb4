"""Training: recipes, loss, dynamic weight decay, schedule, checkpoints and the loop."""
