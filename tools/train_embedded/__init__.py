"""Makes models/reprise-austen.gguf, the model that Reprise carries with it. See README.md."""
