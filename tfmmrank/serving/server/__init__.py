"""The embedded server: TensorFlow Serving's protocol from Python."""
