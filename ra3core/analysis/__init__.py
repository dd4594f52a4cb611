"""What the method did, measured on its own models: above learning, below report. One file a measurement."""
