"""`ar sample`, `ar export`, `ar certify` and `ar reproduce` on one real run of the null backend."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import serving
from prerequisites import lacking
from real_run import make_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.followup.pairs import PairedInterval
from autoresearch.core.judge.paired import PairedNoise
from autoresearch.core.store.headline import Headline, Mean, headline_of
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.samples import SAMPLES, read_samples
from autoresearch.core.takeaway import bundle, certificate
from autoresearch.core.takeaway.board import page, read_board
from autoresearch.core.takeaway.claim import Comparison
from autoresearch.core.takeaway.claim import measure as measure_claim
from autoresearch.core.trial.sampling import Drawing


@pytest.fixture(scope="module")
def made(tmp_path_factory, prepared):
    """A workspace whose run `t` has kept one change of two, and a certificate of it."""
    folder = make_run(tmp_path_factory.mktemp("run") / "w", prepared, (0.25, 0.0001))
    assert ar(["--workspace", str(folder), "certify", "--quiet"]) == 0
    return folder


@pytest.fixture
def workspace(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def own(made, tmp_path, monkeypatch):
    """A copy, for a test that changes something."""
    folder = shutil.copytree(made, tmp_path / "w", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def refusal(capsys, code, *arguments):
    """The one line in which a command refuses."""
    assert ar([str(one) for one in arguments]) == code
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "Traceback" not in told.err, told
    return told.err


@pytest.fixture
def hub():
    with serving() as found:
        yield found


# ---- ar sample


def test_the_best_and_the_baseline_continue_a_prompt_side_by_side(workspace, capsys):
    asked = ["sample", "import os", "def f(", "--baseline", "--tokens", "12", "--json"]
    assert ar(asked) == 0
    first = json.loads(capsys.readouterr().out)
    assert [one["experiment"] for one in first["files"]] == [0, 1] and first["prompts"] == ["import os", "def f("]
    texts = [text for one in first["files"] for text in one["texts"]]
    assert all(texts) and len(set(texts)) == 4
    assert ar(asked) == 0  # the same seed draws the same
    assert json.loads(capsys.readouterr().out)["files"] == first["files"]
    assert ar(["sample", "def f(", "--tokens", "12", "--temperature", "0", "--json"]) == 0
    greedy = json.loads(capsys.readouterr().out)["files"][0]["texts"]
    assert ar(["sample", "def f(", "--tokens", "12", "--top-p", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["texts"] == greedy
    assert not list((workspace / "runs/t").glob(".sample-*"))


def test_samples_are_shown_as_text_by_the_report_and_the_dashboard(own, capsys):
    from autoresearch.core.report.web.api import samples

    assert ar(["sample", "</pre><script>\x1b[2J", "--tokens", "3"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert ar(["report"]) == 0
    page = (own / "runs/t/report.html").read_text()
    assert "<h2>Samples</h2>" in page and "<script>" not in page and "\x1b" not in page
    assert samples(own / "runs/t")["prompts"][0]["sides"][0]["name"].startswith("experiment 1, ")
    for text in ("{", "[]", '{"time": NaN}', "[" * 10_000):
        (own / "runs/t" / SAMPLES).write_text(text)
        assert read_samples(own / "runs/t") is None


def test_weights_that_the_run_has_not_kept_are_trained_again_if_asked_for(own, capsys):
    said = refusal(capsys, 3, "sample", "x", "--experiment", "2")
    assert "has kept no weights of experiment 2" in said and "--train trains it once more" in said
    assert ar(["sample", "x", "--experiment", "2", "--train", "--tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["val_bpb"] > 0


def test_weights_that_were_changed_are_refused(own, capsys):
    path = own / "runs/t/trials/1-1/weights.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    assert "changed after it was frozen" in refusal(capsys, 1, "sample", "x")
    assert "changed after it was frozen" in refusal(capsys, 1, "export", "model")
    assert not (own / "model").exists()


def test_what_cannot_be_sampled_is_one_line(workspace, capsys):
    (empty := workspace / "runs" / "empty.txt").write_text("\n\n")
    for arguments, code, words in (
        (["x", "--experiment", "9"], 2, "no experiment 9"),
        (["word " * 300], 2, "longer than a row of 256"),
        (["x"] * 17, 2, "at most 16"),
        (["--prompts", "/dev/zero"], 2, "it is a device"),
        (["--prompts", empty], 2, "holds no prompt"),
        (["x", "--tokens", "0"], 2, "--tokens"),
        (["x", "--tag", "u"], 2, "no run 'u'"),
    ):
        assert words in refusal(capsys, code, "sample", *arguments)


def test_a_token_is_drawn_from_the_likely_ones_and_never_from_what_is_no_number():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.05, 0.6, 0.35, 1e-12], np.float32))
    drawn = {Drawing(temperature=1.0, top_p=0.9).next(logits, rng) for _ in range(200)}
    assert drawn == {1, 2}
    assert Drawing(temperature=1e-9).next(logits, rng) == 1
    assert Drawing(top_p=1.0).next(np.array([-np.inf, 0.0, -np.inf], np.float32), rng) == 1
    for bad in ([np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]):
        with pytest.raises(ValueError, match="not a finite number"):
            Drawing().next(np.array(bad, np.float32), rng)


# ---- ar export


def test_a_place_that_takes_no_certificate_is_left_as_it_is(workspace, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    os.mkfifo(tmp_path / "pipe")
    places = {
        "/": "it is a folder",
        tmp_path / "file" / "c": "Not a directory",
        tmp_path / "pipe": "it is not a plain file",
    }
    for place, words in places.items():
        assert words in refusal(capsys, 2, "certify", place)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "file").read_text() == "kept"


def test_a_certificate_replaces_an_earlier_one_of_its_run_and_no_other_file(workspace, made, tmp_path, capsys):
    def other_run(body):
        body["rows"]["runs"][0]["created"] += 1

    notes, mine = tmp_path / "notes.md", tmp_path / "mine.arcert"
    notes.write_text("kept")
    theirs = rewritten(made, tmp_path / "theirs.arcert", body=other_run)
    before = theirs.read_bytes()
    assert "is no certificate" in refusal(capsys, 2, "certify", notes)
    assert "certifies another run" in refusal(capsys, 2, "certify", theirs)
    assert notes.read_text() == "kept" and theirs.read_bytes() == before
    for _ in range(2):
        assert ar(["certify", str(mine), "-q"]) == 0
    capsys.readouterr()


def test_the_command_that_checks_a_certificate_finds_it(workspace, tmp_path, capsys):
    for place in ([], [str(tmp_path / "my night.arcert")]):
        assert ar(["certify", *place]) == 0
        told = capsys.readouterr()
        check = shlex.split(told.err.splitlines()[-1].partition("to check it: ")[2])
        assert check[-1] == told.out.strip() and ar([*check[1:], "--seeds", "0", "-q"]) == 0
        capsys.readouterr()


def test_a_device_in_the_place_of_a_key_is_not_read(workspace, tmp_path, capsys):
    assert "cannot sign: it is a device" in refusal(capsys, 2, "certify", tmp_path / "c", "--sign", "/dev/zero")
    assert ar(["certify", str(tmp_path / "c"), "-q"]) == 0
    capsys.readouterr()
    asked = ("reproduce", tmp_path / "c", "--seeds", "0", "--signer", "/dev/zero")
    assert "is not a public key: it is a device" in refusal(capsys, 2, *asked)


def test_a_folder_that_takes_no_model_is_refused_before_anything_is_trained(workspace, tmp_path, capsys):
    (tmp_path / "file").touch()
    for place, words in (
        (tmp_path / "file", "it is not a folder"),
        (tmp_path / "file/m", "cannot be written"),
        (".", "holds"),
    ):
        assert words in refusal(capsys, 2, "export", place, "--experiment", "2", "--train")


def test_an_exported_model_is_used_without_ar(workspace, tmp_path, capsys):
    target = tmp_path / "deep" / "model"
    assert ar(["export", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == 1
    names = " ".join(sorted(path.name for path in target.iterdir()))
    assert names == "README.md autoresearch config.json model.safetensors sample.py tokenizer.model train.py"
    # Whatever of ar is installed must not be needed.
    guard = "import runpy, sys; sys.modules['autoresearch.core'] = None; sys.path.insert(0, sys.argv.pop(1)); "
    command = [sys.executable, "-c", f"{guard} runpy.run_path(sys.argv.pop(1), run_name='__main__')"]
    command += [str(target), str(target / "sample.py"), "import os"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("import os") and len(done.stdout) > 40
    card = (target / "README.md").read_text()
    for words in ("Measured mean: **", "Baseline: ", "`rate 0.25 <b>&`", "preset `demo`", "pip install numpy"):
        assert words in card, card
    assert str(workspace) not in card + (target / "config.json").read_text()
    assert "Seeds of the measured mean: " in card
    assert "holds something already" in refusal(capsys, 2, "export", target)
    assert "--public is for --push" in refusal(capsys, 2, "export", tmp_path / "other", "--public")


def test_the_card_of_another_experiment_says_nothing_of_the_best_one_s_trials(workspace, tmp_path):
    target = tmp_path / "model"
    assert ar(["export", str(target), "--experiment", "0"]) == 0
    card = (target / "README.md").read_text()
    assert "# t: baseline" in card and "These very weights" in card
    assert "measured mean" not in card.lower(), card


def test_a_push_uploads_every_file_to_the_hub(workspace, tmp_path, hub):
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "autoresearch.core.cli.main", "export", str(tmp_path / "m"), "--push", "me/night"]
    environment["AR_WORKSPACE"] = str(workspace)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.created == [{"name": "night", "organization": "me", "private": True}]
    assert {"README.md", "model.safetensors", "train.py", "autoresearch/backends/contract.py"} <= set(hub.committed)
    hub.status = 403
    command[4] = str(tmp_path / "n")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3 and "the hub refuses to write" in done.stderr and "hf_secret" not in done.stderr
    assert done.stderr.count("\n") == 2 and (tmp_path / "n" / "README.md").exists()


# ---- ar certify and ar reproduce


def rewritten(made: Path, target: Path, **changes) -> Path:
    """The certificate with other contents in some files, or with a changed body."""
    parts = bundle.read_bundle(made / "runs/t/t.arcert")
    body = json.loads(parts[bundle.CERTIFICATE])
    for name, change in changes.items():
        if name == "body":
            change(body)
        else:
            parts[getattr(bundle, name)] = change(parts[getattr(bundle, name)])
    if "body" in changes:
        parts[bundle.CERTIFICATE] = json.dumps(body).encode()
    bundle.write_bundle(target, parts)
    return target


def test_an_untouched_certificate_fits_and_is_measured_at_fresh_seeds(made, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["--data-dir", str(prepared.folder.parent), "reproduce", str(made / "runs/t/t.arcert"), "--json", "-q"]
    assert ar([*command, "--seeds", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert "the settings of the certificate, whose preset is demo" in refusal(capsys, 2, *command[2:], "--preset", "x")
    code = ar([*command, "--seeds", "1"])
    record = json.loads(capsys.readouterr().out)
    assert record["checked"] and len(record["seeds"]) == 1 and record["limits"] == []
    assert record["draws"] == {"recorded": 2, "checked": 2}  # the change that was not kept was not audited
    assert record["delta"] < 0 and (record["verdict"] == "holds") is (code == 0)
    with LedgerReader(made / "runs/t") as reader:
        assert not {trial.seed for trial in reader.every_trial()} & set(record["seeds"])


def test_whatever_was_changed_is_named_and_nothing_is_trained(made, tmp_path, capsys):
    def seed(body):
        body["rows"]["trials"][1]["seed"] += 1

    def score(body):
        body["rows"]["trials"][-1]["val_bpb"] -= 1e-6

    def claim(body):
        body["claim"]["delta"] *= 2

    def text(body):
        body["manifest"]["vocabularies"][0]["tokenizer"]["sha256"] = "0" * 64

    def draw(body):
        result = json.loads(body["rows"]["trials"][1]["result"])
        result["audit"]["draw"]["positions"] = result["audit"]["draw"]["positions"][:-8]
        body["rows"]["trials"][1]["result"] = json.dumps(result)

    def link(body):
        body["rows"]["chain"][1]["digest"] = "0" * 64

    def settings(body):
        body["rows"]["runs"][0]["config"] = body["rows"]["runs"][0]["config"].replace('"seed": 7', '"seed": 8')

    def gone(body):
        del body["rows"]["trials"][0]

    def undecided(body):
        """Change a trial of an experiment without a verdict, of which the chain knows nothing."""
        body["rows"]["trials"].append({**body["rows"]["trials"][-1], "experiment": 9, "subject": 9})

    cases = {
        "best_train.py: it is not the source": {"SOURCE": lambda source: source.replace(b"0.25", b"0.26", 1)},
        "baseline_train.py: it is not": {"BASELINE": lambda source: source + b"\n"},
        "change.diff: it is not": {"CHANGE": lambda diff: diff + b" "},
        "experiment 1: its row or its trials": {"body": seed},
        "experiment 2: its row or its trials": {"body": score},
        "claim: delta is": {"body": claim},
        "audit of experiment 1, trial 1: it has": {"body": draw},
        "manifest: its hashes": {"body": text},
        "experiment 1: link 2 of the chain": {"body": link},
        "experiment 0: link 1 of the chain": {"body": settings},
        "experiment 0: its row or its trials": {"body": gone},
        "rows: they are not those": {"body": undecided},
    }
    for words, changes in cases.items():
        path = rewritten(made, tmp_path / "x.arcert", **changes)
        assert ar(["reproduce", str(path)]) == 1
        told = capsys.readouterr().out
        assert f"does not fit: {words}" in told.replace("chain: ", "") and "everything fits" not in told, (words, told)


def test_an_audit_that_looked_where_its_author_chose_is_named(made, prepared):
    with LedgerReader(made / "runs/t") as reader:
        audits, config = certificate.audits_of(reader), reader.run().config
    assert len(audits) == 2 and not list(certificate.draw_faults(audits, prepared, config))
    name, audit = next(iter(audits.items()))
    chosen = audit.model_copy(update={"draw": audit.draw.model_copy(update={"entropy": "0" * 32})})
    (fault,) = certificate.draw_faults({name: chosen}, prepared, config)
    assert fault == "audit of experiment 0, trial 1: its random bytes give other positions"


def test_what_cannot_be_measured_here_is_one_line(made, tmp_path, capsys):
    path = made / "runs/t/t.arcert"
    for options, words in (
        (["--data-dir", tmp_path], "is not prepared here"),
        (["--backend", "cuda", "--preset", "demo"], "cannot be carried over to cuda"),
    ):
        assert ar([*map(str, options), "--json", "reproduce", str(path)]) == 3
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_what_fresh_trials_say_of_a_claim():
    def told(here, half, claimed, claimed_half=0.0):
        found = PairedInterval(here, here - half, here + half, half / 2, 5.0, PairedNoise(0.01, 5.0, 3))
        return Comparison(found, {1: 1.0}, {1: 1.0 + here}, claimed, claimed_half).verdict

    assert told(-0.10, 0.02, -0.11) == "holds"
    assert told(-0.10, 0.02, -0.15) == "better by another amount"
    assert told(-0.10, 0.02, -0.15, claimed_half=0.05) == "holds"
    assert told(-0.10, 0.20, -0.11) == "not certain"
    assert told(-0.01, 0.02, -0.15) == "does not hold"
    assert told(+0.10, 0.02, -0.11) == "does not hold"
    assert told(+0.03, 0.02, -0.01, claimed_half=0.10) == "does not hold"  # worse for certain, however near
    assert [told(here, 0.02, None) for here in (-0.1, 0.0, 0.1)] == ["holds", "not certain", "does not hold"]


def test_a_claim_does_not_decide_how_strictly_it_is_checked():
    """Its own interval is of the certificate's noise, which its author can write as large as they like."""
    scores = {"baseline": 1.5, "best": 1.48}

    def measure(name, _source, seed):
        return scores[name.partition("-")[0]] + seed * 1e-4 + (name == "best-2") * 1e-3

    claim = Headline(
        1,
        Mean(1.0, 1, selected=False, points=((7, 1.0),), half=5.0),
        Mean(1.5, 1, selected=False, points=((7, 1.5),), half=5.0),
        None,
        10.0,
    )
    remeasurer = SimpleNamespace(first_seed=0, measure=measure)
    told = measure_claim(remeasurer, "", "", 3, "h100", claim)
    assert (told.claimed, told.verdict) == (pytest.approx(-0.5), "better by another amount")
    near = replace(claim, best=replace(claim.best, value=1.481, points=((7, 1.481),)))
    assert measure_claim(remeasurer, "", "", 3, "h100", near).verdict == "holds"


def test_a_claim_of_the_trials_that_chose_the_file_is_marked(made, tmp_path, capsys):
    path = made / "runs/t/t.arcert"
    assert ar(["reproduce", str(path), "--seeds", "0"]) == 0
    told = capsys.readouterr().out
    assert ar(["reproduce", str(path), "--seeds", "0", "--json"]) == 0
    selected = json.loads(capsys.readouterr().out)["selected"]
    with LedgerReader(made / "runs/t") as reader:
        assert selected is headline_of(reader).best.selected
    assert ("selected: the claim is of the trials that chose the file" in told) is selected
    shutil.copy(path, tmp_path / "t.arcert")
    assert ("selected: of the trials that chose the file" in page(read_board(tmp_path)[0])) is selected


def test_a_signature_shows_whose_it_is(made, tmp_path, capsys):
    if shutil.which("ssh-keygen") is None:
        lacking("there is no ssh-keygen")
    for name in ("mine", "other"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    path = tmp_path / "signed.arcert"
    shared = ["--workspace", str(made)]
    assert ar([*shared, "certify", str(path), "--sign", str(tmp_path / "mine"), "--json"]) == 0
    signer = json.loads(capsys.readouterr().out)["signer"]
    check = ["reproduce", str(path), "--seeds", "0", "--signer"]
    assert ar([*check, str(tmp_path / "mine.pub")]) == 0 and signer in capsys.readouterr().out
    assert ar([*check, str(tmp_path / "other.pub")]) == 1
    assert "signature: it is by the key" in capsys.readouterr().out
    parts = bundle.read_bundle(path)
    parts[bundle.CERTIFICATE] += b" "
    bundle.write_bundle(path, parts)
    assert ar([*check[:-1]]) == 1 and "signature: it is not one of this certificate" in capsys.readouterr().out
    for arguments, words in (
        ([*shared, "certify", "--sign", tmp_path / "none"], "cannot sign"),
        (["reproduce", made / "runs/t/t.arcert", "--signer", tmp_path / "none"], "is not a public key"),
    ):
        assert words in refusal(capsys, 2, *arguments)
    assert ar(["reproduce", str(made / "runs/t/t.arcert"), "--seeds", "0", "--signer", str(tmp_path / "mine.pub")]) == 1


def archive(path: Path, *entries: tuple[str, bytes], mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            file.writestr(entry, content, method)
    return path


def test_a_hostile_bundle_is_one_line(made, tmp_path, capsys):
    parts = bundle.read_bundle(made / "runs/t/t.arcert")
    body = parts[bundle.CERTIFICATE].decode()
    bomb = archive(tmp_path / "bomb", ("certificate.json", bytes(200 * 2**20)))
    twice = tmp_path / "twice"
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(twice, ("change.diff", b""), ("change.diff", b""))

    def with_body(text: str) -> Path:
        path = tmp_path / f"body-{len(list(tmp_path.iterdir()))}"
        return archive(path, *{**parts, bundle.CERTIFICATE: text.encode()}.items())

    deep = "[" * 100_000 + "]" * 100_000
    rows = json.loads(body)["rows"]
    many = {**json.loads(body), "rows": {**rows, "trials": [{}] * 200_001}}
    hosts = {**json.loads(body), "rows": {**rows, "runs": [{**rows["runs"][0], "host": "x"}]}}
    odd = {**json.loads(body), "rows": {**rows, "runs": [{**rows["runs"][0], "incumbent": 99}]}}
    half = {**json.loads(body), "rows": {**rows, "runs": [{**rows["runs"][0], "tag": "\ud800"}]}}
    config = json.loads(rows["runs"][0]["config"])
    forever = {**rows["runs"][0], "config": json.dumps({**config, "vocabularies": "x", "score_rows": 10**9})}
    (tmp_path / "plain").write_text("no archive")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "plain", "cannot be unpacked"),
        (archive(tmp_path / "up", ("../../etc/x", b"")), "a file named '../../etc/x'"),
        (archive(tmp_path / "abs", ("/etc/x", b"")), "a file named '/etc/x'"),
        (archive(tmp_path / "link", ("best_train.py", b"/etc/passwd"), mode=0o120777), "is a link"),
        (archive(tmp_path / "many", *((str(at), b"") for at in range(9))), "holds 9 files"),
        (archive(tmp_path / "lzma", ("change.diff", b""), method=zipfile.ZIP_LZMA), "compressed in a way"),
        (archive(tmp_path / "few", ("change.diff", b"")), "it lacks certificate.json"),
        (twice, "change.diff twice"),
        (bomb, "certificate.json has more than"),
        (with_body("{"), "certificate.json"),
        (with_body("[]"), "not an object"),
        (with_body('{"format": 1e999}'), "not finite"),
        (with_body(deep), "nested too deeply"),
        (with_body("9" * 5000), "certificate.json"),
        (with_body(body.replace('"claim": {', '"claim": {"x": NaN,')), "holds NaN"),
        (with_body(body.replace('"format": 1', '"format": 2')), "its format is 2"),
        (with_body(json.dumps({**json.loads(body), "rows": {**rows, "trials": 10**9}})), "are not a list"),
        (with_body(json.dumps(many)), "200,001 rows"),
        (with_body(json.dumps(hosts)), "has a column 'host'"),
        (with_body(json.dumps(odd)), "cannot be understood"),
        (with_body(json.dumps(half)), "its rows make no ledger"),
        (with_body(json.dumps({**json.loads(body), "rows": {**rows, "runs": [forever]}})), "cannot be understood"),
        (with_body(json.dumps({**json.loads(body), "manifest": 3})), "manifest: it is not one"),
    ):  # fmt: skip
        assert words in (said := refusal(capsys, 1, "reproduce", path)), (words, said)
        assert "ledger.sqlite" not in said and "ar loop" not in said, said
    for name, words in (("missing", "No such file"), ("folder", "it is a folder"), ("pipe", "it is a pipe")):
        assert words in refusal(capsys, 2, "reproduce", tmp_path / name)


def test_a_ledger_that_was_edited_gets_no_certificate(own, capsys):
    import sqlite3

    with sqlite3.connect(own / "runs/t/ledger.sqlite") as connection:
        connection.execute("UPDATE trials SET val_bpb = val_bpb - 0.1 WHERE experiment = 1")
    assert "is not as it was written" in refusal(capsys, 1, "certify")


def test_a_certificate_is_the_same_bytes_for_the_same_contents(made, tmp_path):
    found = certificate.load(made / "runs/t/t.arcert")
    bundle.write_bundle(tmp_path / "again.arcert", found.parts)
    assert (tmp_path / "again.arcert").read_bytes() == (made / "runs/t/t.arcert").read_bytes()


def test_the_board_lists_certificates_as_text_and_says_what_does_not_fit(made, tmp_path):
    shutil.copy(made / "runs/t/t.arcert", tmp_path / "a<b>.arcert")

    def forged(body):
        body["rows"]["runs"][0]["tag"] = "<script>alert(1)</script>"
        body["claim"]["delta"] = "<img src=x>"

    rewritten(made, tmp_path / "forged.arcert", body=forged)
    (tmp_path / "none.arcert").write_text("x")
    lines, refused = read_board(tmp_path)
    text = page(lines)
    assert [name for name, _ in refused] == ["none.arcert"]
    assert "a&lt;b&gt;.arcert" in text and "<script" not in text and "<img" not in text
    assert text.index("a&lt;b&gt;") < text.index("forged.arcert") < text.index("does not fit:")


def test_the_board_names_every_file_that_it_leaves_out(made, tmp_path):
    """Those too of which only the rows show that they are none, or a number that is larger than any float."""

    def odd(body):
        body["rows"]["runs"][0]["incumbent"] = 99

    def huge(body):
        body["made"] = 10**400

    def huge_gain(body):
        body["rows"]["runs"][0]["incumbent"], body["claim"]["delta"] = 0, -(10**400)

    for change in (odd, huge, huge_gain):
        rewritten(made, tmp_path / f"{change.__name__}.arcert", body=change)
    lines, refused = read_board(tmp_path)
    assert not lines and [name for name, _ in refused] == ["huge.arcert", "huge_gain.arcert", "odd.arcert"]
    assert "not finite" in refused[0][1] and "cannot be understood" in refused[2][1]


def test_no_files_name_or_figure_spoils_the_page(made, tmp_path):
    def huge(body):
        body["claim"]["delta"] = -1e308

    try:
        rewritten(made, tmp_path / os.fsdecode(b"\xff.arcert"), body=huge)
    except OSError:
        pytest.skip("this file system takes no such name")
    text = page(read_board(tmp_path)[0])
    assert text.encode() and "0000000" not in text.partition("<tbody>")[2]


def test_the_board_of_the_docs_is_the_page_of_its_folder():
    folder = Path(__file__).parents[3] / "docs/board"
    assert (folder / "index.html").read_text(encoding="utf-8") == page(read_board(folder)[0])
