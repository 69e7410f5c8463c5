"""Examples of every command, for its --help and the documentation."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "doctor": (("ar doctor", "check all prerequisites"), ("ar doctor -q", "only warnings and failures")),
    "init": (
        ("ar init ~/night", "a workspace in a new folder"),
        ("ar init ~/night --agent claude", "a workspace in which a coding agent can start at once"),
    ),
    "prepare": (
        ("ar prepare", "the preset's own corpus"),
        ("ar prepare --corpus ~/texts --vocab 1024,2048", "your own text, with two vocabularies"),
        ("ar prepare --corpus climbmix --shards 8", "eight shards from the hub"),
    ),
    "train": (
        ("ar --preset demo train", "one trial of the workspace's train file"),
        ("ar train --file other.py --budget 60 --seed 1 --json", "another file, for a minute, printed as JSON"),
    ),
    "adopt": (
        ("ar adopt ~/autoresearch/train.py", "measure it, and show its own val_bpb beside"),
        ("ar --preset demo adopt train.py --budget 60 --json", "train for a minute, print JSON"),
        ("ar adopt train.py --into mine.py", "begin a train file with what can be carried over"),
    ),
    "loop": (
        ("ar loop --hours 8", "a night's work; the same command continues it"),
        ("ar --preset demo loop -n 6", "a small run: six experiments"),
        ("ar loop --dry-run", "show the next step and its cost, run nothing"),
        ("ar loop --researcher mix --model anthropic/claude-sonnet-4-5 --max-usd 5", "with a language model"),
        (
            "ar loop --hours 8 --track wandb --on-keep 'notify-send \"$AR_EVENT_DESCRIPTION\"'",
            "with a tracker and a notification",
        ),
    ),
    "brief": (
        ("ar brief", "a page to read before the next change"),
        ("ar brief --json", "the same as data, the best file's source included"),
    ),
    "submit": (
        ('ar submit --why "wider MLP: more capacity per step"', "the workspace's train file"),
        ('ar submit try.py --why "..." --predict -0.004 --json', "another file, the verdict as JSON"),
        ('ar submit try.py --why "..." --wait', "wait until a running loop has decided it"),
    ),
    "result": (
        ("ar result", "the last submission"),
        ("ar result 17", "experiment 17"),
        ("ar result 1764150000000-1a2b3c4d --wait", "wait for its verdict"),
    ),
    "mcp": (("claude mcp add ar -- ar mcp --workspace ~/night", "register the server with Claude Code"),),
    "status": (("ar status", "every run of the workspace"), ("ar status --tag night --json", "one of them, as JSON")),
    "fleet": (
        ("ar fleet", "the nodes and the runs on the cluster"),
        ("ar fleet pause night", "let the run night start no more trials"),
        ("ar fleet drain box3", "start no more trials on that machine"),
    ),
    "results": (
        ("ar results", "the last run's table"),
        ("ar results --why 17", "the reason for experiment 17's verdict"),
        ("ar results --tsv > results.tsv", "five columns for other programs"),
    ),
    "diff": (
        ("ar diff", "the best file against the baseline"),
        ("ar diff parent 17", "what experiment 17 changed"),
        ("ar diff night:best best", "two runs' best files"),
    ),
    "note": (
        ('ar note 17 "lost to the slow start, not to the idea"', "researchers read it from now on"),
        ("ar note", "every note of the run"),
    ),
    "pin": (("ar pin 17", "show it to researchers, however old it is"), ("ar pin 17 --off", "unpin it")),
    "watch": (("ar watch", "the run in progress"), ("ar watch --json", "every decision as an object")),
    "dashboard": (
        ("ar dashboard", "a page at http://127.0.0.1:8686/"),
        ("ar dashboard --host 0.0.0.0", "for other machines, at an address with a token"),
    ),
    "report": (
        ("ar report", "report.html and progress.png in the run's folder"),
        ("ar report --markdown > report.md", "for a pull request"),
    ),
    "apply": (
        ("ar apply", "write the best train file into the checkout"),
        ("ar apply --tag night --force", "overwrite uncommitted changes"),
    ),
    "sample": (
        ('ar sample "Once upon a time"', "continue it with the best file's model"),
        ("ar sample --prompts prompts.txt --baseline", "a list of prompts, beside the baseline's text"),
        ("ar sample --temperature 0 --tokens 40 --train", "train the file again if no weights were kept"),
    ),
    "export": (
        ("ar export model", "the best model, ready to use elsewhere"),
        ("ar export model --push me/night", "also push it to a private repository of the hub"),
    ),
    "certify": (
        ("ar certify", "TAG.arcert in the run's folder"),
        ("ar certify night.arcert --sign ~/.ssh/id_ed25519", "signed by you"),
    ),
    "reproduce": (
        ("ar reproduce night.arcert", "check it, then train both files at three fresh seeds"),
        ("ar reproduce night.arcert --seeds 0", "check only hashes, chain and signature"),
        ("ar --backend mlx reproduce night.arcert", "does the change help with another backend?"),
    ),
    "verify": (
        ("ar verify", "three fresh seeds for each file, more if needed"),
        ("ar verify --seeds 6", "at least six seeds"),
    ),
    "ablate": (("ar ablate", "take out each kept change in turn"),),
    "scale": (
        ("ar scale --plan", "the trials that it takes, and how long"),
        ("ar scale", "half, twice and four times the budget, half and twice the width"),
        ("ar scale --budgets 4,8 --widths none", "only longer budgets"),
    ),
    "rm": (("ar rm night", "ask, then delete the run night"), ("ar rm night --keep-refs --yes", "keep its commits")),
    "bench": (
        ("ar bench", "measure this machine's backend"),
        ("ar --backend mlx bench --json", "another backend, as JSON"),
    ),
    "compare": (("ar --preset demo compare", "both backends on the same work"),),
    "ideas": (
        ("ar ideas --platform h100 --verdict helps", "changes that helped on an H100"),
        ("ar ideas --example > ideas.toml", "a template for your own ideas"),
    ),
    "config": (
        ("ar config show", "every option"),
        ("ar config show loop", "the options of `ar loop`"),
        ("ar config show --set --json", "only options that were set, as JSON"),
    ),
    "completion": (('eval "$(ar completion bash)"', "for this shell"),),
}
"""Calls of every command, each with its purpose."""


def epilog(name: str, before: str | None = None) -> str:
    """Return the end of a command's help: its examples, then `before`. \b keeps click from filling the lines."""
    calls = EXAMPLES.get(name, ())
    width = max((len(call) for call, _ in calls if len(call) < 50), default=0)
    lines = []
    for call, what in calls:
        lines += [f"  {call:<{width}}  {what}"] if len(call) <= width else [f"  {call}", f"  {'':<{width}}  {what}"]
    paragraphs = ["\b\nExamples:\n" + "\n".join(lines)] if lines else []
    return "\n\n".join([*paragraphs, before or "The options of `ar --help` may follow this command too."])
