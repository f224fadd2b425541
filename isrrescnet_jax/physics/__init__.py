"""What happened to the image: operators, interpolation and the noise level."""
