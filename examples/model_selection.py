"""Which model answers: presets, any name, and who answers when it cannot (02.28).

    python examples/model_selection.py

It asks three short questions. To try it without an account, set ANTHROPIC_BASE_URL to a simulator
(`dragoman sim`).
"""

import tempfile

import dragoman
from dragoman.options import with_haiku, with_model, with_opus


def main() -> None:
    with dragoman.connect("model_selection") as claude, tempfile.TemporaryDirectory() as folder:
        print("Models:", ", ".join(model.alias for model in claude.model_list().data))

        answer = claude.query("Is this a question?", **with_haiku({"cwd": folder}))
        print(f"haiku  answered as {answer.model}: {answer.text}")

        # The preset falls back to sonnet when opus is overloaded.
        answer = claude.query("Name a hard problem.", **with_opus({"cwd": folder}))
        print(f"opus   answered as {answer.model}: {answer.text}")

        # Any full name will do, with any fallbacks, tried in order.
        options = with_model({"cwd": folder}, "claude-sonnet-5-5", fallback=["opus", "haiku"])
        answer = claude.query("And an easy one?", **options)
        print(f"sonnet answered as {answer.model}: {answer.text}")


if __name__ == "__main__":
    main()
