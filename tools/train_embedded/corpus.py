"""Jane Austen's six novels, from Debian's r-cran-janeaustenr, as clean paragraphs split into training and held-out."""

import argparse
import random
import re
import subprocess
from pathlib import Path

from .shape import END_OF_TEXT, TURN_END, TURN_START

BOOKS = ["sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion"]
HELD_OUT = 0.05  # the end of every book
PROMPT_BOOKS = ["prideprejudice", "persuasion"]  # whose held-out ends make models/prompt.txt
CHAT_SEED = 1775


def export(folder: Path):
    names = ",".join(f'"{b}"' for b in BOOKS)
    script = (
        f"library(janeaustenr); for (n in c({names}))"
        ' writeLines(enc2utf8(get(n)), file.path(commandArgs(TRUE)[1], paste0(n, ".raw")), useBytes=TRUE)'
    )
    subprocess.run(["Rscript", "-e", script, str(folder)], check=True)


def paragraphs(raw: str) -> list[str]:
    """One line a paragraph: the books come wrapped at 72 columns, some with two spaces after a full stop."""
    joined = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", raw))
    # The editor's note after the end of Northanger Abbey is not Austen's.
    kept = []
    for p in joined:
        if p.startswith("A NOTE ON THE TEXT"):
            break
        if p:
            kept.append(p)
    return kept


def split(book: list[str]):
    budget = HELD_OUT * sum(map(len, book))
    cut = len(book)
    while cut > 0 and budget > 0:
        cut -= 1
        budget -= len(book[cut])
    return book[:cut], book[cut:]


def conversations(book: list[str], rng: random.Random) -> str:
    """The training paragraphs once more as ChatML: every turn of the assistant goes on from what the user wrote.

    It teaches the control tokens a meaning (a turn begins, a turn ends), nothing about answering questions.
    """
    text, at = [], 0
    while at + 2 < len(book):
        for _ in range(rng.randint(1, 3)):
            reply = rng.randint(1, 3)
            if at + 1 + reply > len(book):
                break
            answer = "\n\n".join(book[at + 1 : at + 1 + reply])
            text.append(f"{TURN_START}user\n{book[at]}{TURN_END}\n{TURN_START}assistant\n{answer}{TURN_END}\n")
            at += 1 + reply
        text.append(END_OF_TEXT)
    return "".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--prompt", type=Path, help="where to write the prompt of the demo")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    export(options.work)

    train, chat, rng = [], [], random.Random(CHAT_SEED)
    prompt = []
    for name in BOOKS:
        book = paragraphs((options.work / f"{name}.raw").read_text("utf-8"))
        kept, held = split(book)
        train.append("\n\n".join(kept))
        chat.append(conversations(kept, rng))
        (options.work / f"{name}.held").write_text("\n\n".join(held) + "\n", "utf-8")
        if name in PROMPT_BOOKS:
            prompt.append("\n\n".join(held))
    (options.work / "train.txt").write_text(END_OF_TEXT.join(train) + END_OF_TEXT, "utf-8")
    (options.work / "chat.txt").write_text("".join(chat), "utf-8")
    if options.prompt:
        options.prompt.write_text("\n\n".join(prompt) + "\n", "utf-8")


if __name__ == "__main__":
    main()
