"""`launch chat`: what is remembered, the words that begin with `/`, and Ctrl-C, which stops the answer only."""

from __future__ import annotations

from tests.launcher.commands import Terminal, launch, started

CHAT = ("chat", "smollm2-instruct", "--engine", "echo")
HEADLINE = "smollm2-instruct as gguf Q4_1 on echo\n"
HELP = (
    "/system TEXT sets the system message · /clear forgets the conversation · /exit leaves · Ctrl-C stops an answer\n"
)


def test_a_conversation_in_a_pipe() -> None:
    done = launch(*CHAT, stdin="hello  world\n\n  second  \n")
    assert (done.code, done.out, done.err) == (0, "hello  world\nsecond\n", HEADLINE + HELP)


def test_exit_leaves_at_once() -> None:
    for word in ("/exit", "/quit", "/bye"):
        done = launch(*CHAT, stdin=f"one\n{word}\ntwo\n")
        assert (done.code, done.out) == (0, "one\n")


def test_its_words() -> None:
    done = launch(*CHAT, stdin="/system Be brief\n/system\n/clear\n/what\n/help\n")
    said = done.err.removeprefix(HEADLINE + HELP)
    assert said == f"system message set\nsystem message removed\nthe conversation is forgotten\n{HELP}{HELP}"
    assert done.out == ""


def test_what_was_said_counts_until_it_is_forgotten() -> None:
    """Echo answers with the last question, so that it is the context's end that shows what it was sent."""
    question = "word " * 11
    done = launch(*CHAT, "--context-length", "48", stdin=f"{question}\n{question}\n{question}\n/clear\n{question}\n")
    answers = done.out.split("\n")
    assert done.code == 0, done.err
    assert answers == [question.strip(), answers[1], question.strip(), ""]
    assert answers[1] != question.strip()  # cut by the context's end
    assert done.err.count("error: ") == 1
    assert "/clear forgets the conversation\nthe conversation is forgotten\n" in done.err


def test_the_system_message_is_sent() -> None:
    long = "word " * 40
    for line in (f"/system {long}\nhello\n/system\nhello\n", "hello\n"):
        more = ("--system", long) if line == "hello\n" else ()
        done = launch(*CHAT, *more, "--context-length", "32", stdin=line)
        assert done.code == 0
        assert done.err.count("error: ") == 1
    assert done.out == ""


def test_ctrl_c_stops_the_answer_only() -> None:
    with Terminal(*CHAT, "--", "--tokens-per-second", "20") as terminal:
        terminal.read_until("> ")
        terminal.type("word " * 100 + "\n")
        terminal.read_until("\nword word word")
        terminal.press_ctrl_c()
        terminal.read_until("stopped")
        terminal.read_until("> ")
        terminal.type("still there\n")
        terminal.read_until("\nstill there\n")
        terminal.read_until("> ")
        terminal.press_ctrl_c_until("/exit leaves\n")
        terminal.type("/exit\n")
        assert "Traceback" not in terminal.read_all()
        assert terminal.wait() == 0


def test_the_end_of_the_input_leaves() -> None:
    with Terminal(*CHAT) as terminal:
        terminal.read_until("> ")
        terminal.press_ctrl_d()
        terminal.read_all()
        assert terminal.wait() == 0


def test_a_conversation_is_not_json() -> None:
    done = launch(*CHAT, "--json")
    assert (done.code, done.err) == (2, "")
    assert done.events[-1]["message"] == "A conversation is not JSON"


def test_killed_it_leaves_nothing() -> None:
    with started(*CHAT) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == HEADLINE
        process.kill()
