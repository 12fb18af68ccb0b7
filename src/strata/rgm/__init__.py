"""The renormalization generative model (RGM) of images."""
