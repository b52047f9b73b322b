"""Where the model lies that comes with the package."""

from pathlib import Path

MODEL = Path(__file__).parent / "models" / "reprise-austen.gguf"
