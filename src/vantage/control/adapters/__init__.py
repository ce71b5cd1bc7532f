"""Environments from elsewhere behind one form: a vector environment of Gymnasium's, or pure functions of JAX."""
