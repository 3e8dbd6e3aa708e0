"""Training of the ATP modules, and of the language model with them."""
