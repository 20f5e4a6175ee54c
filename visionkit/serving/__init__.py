"""What lies between a trained model and a server: checking, publishing, warming up."""
