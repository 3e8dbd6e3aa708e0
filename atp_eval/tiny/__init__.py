"""Training of the embedded tiny model, from scratch and on the CPU: pictures, vision tower, language model,
controls."""
