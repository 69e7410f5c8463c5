from loop_fixtures import TRAIN
from simulated_runs import SOURCE

from autoresearch.core.trainfile.fingerprint import fingerprint
from autoresearch.core.trainfile.trees import statements


def test_comments_layout_docstrings_and_spellings_of_a_number_make_no_difference():
    same = SOURCE.replace("  # width", "").replace("DEPTH = 3", "DEPTH   =   3").replace("2**13", "8_192")
    same = same.replace("0.02", "2e-2").replace("A train file", "Another")
    assert fingerprint(same) == fingerprint(SOURCE)
    assert fingerprint('def f():\n    """One."""\n    return 1\n') == fingerprint("def f():\n    return 1  # one\n")


def test_a_changed_number_name_or_type_makes_a_difference():
    for before, after in (("0.02", "0.021"), ("DEPTH", "DEEP"), ("DEPTH = 3", "DEPTH = 3.0"), ("0.8", "-0.8")):
        assert fingerprint(SOURCE.replace(before, after)) != fingerprint(SOURCE)
    assert fingerprint(SOURCE + "x = 1\n") != fingerprint(SOURCE)


def test_a_source_that_does_not_parse_has_a_key_of_its_own():
    assert fingerprint("def (") == fingerprint("def (") != fingerprint("def ((")


def test_a_fingerprint_sees_the_program_and_not_its_form():
    assert fingerprint(TRAIN) == fingerprint(
        TRAIN.replace('"""A train file."""', "# other words").replace("8  #", "8 #")
    )
    assert fingerprint(TRAIN) != fingerprint(TRAIN.replace("WIDTH = 8", "WIDTH = 9"))
    assert fingerprint("def f(:") != fingerprint("def f(::")
    assert fingerprint("x = " + "(" * 5000) != fingerprint("y")


def test_statements_are_read_one_by_one_wherever_they_stand():
    spread = "x = 1\n@decorated\ndef f():\n    pass\n"
    assert statements(spread) == ("x = 1", "@decorated\ndef f():\n    pass")
    assert statements("a = 1; b = 2\n") == ("a = 1; b = 2",)
    shared = "a = (1,\n 2); b = (3,\n 4)\n"
    assert statements(shared) == (shared,)
    assert statements(SOURCE + "def (") is None
    assert fingerprint("a = 1; b = 2\n") == fingerprint("a = 1\n\n\nb = 2") != fingerprint("b = 2\na = 1")
