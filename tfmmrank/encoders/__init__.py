"""Pretrained networks: text and pictures to vectors, with weights from packages, folders, presets or TF Hub."""
