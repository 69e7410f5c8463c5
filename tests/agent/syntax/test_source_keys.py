from simulated_runs import SOURCE

from autoresearch.agent.syntax.source_keys import structure_key, tree_key
from autoresearch.agent.syntax.trees import statements


def test_comments_layout_docstrings_and_spellings_of_a_number_make_no_difference():
    same = SOURCE.replace("  # width", "").replace("DEPTH = 3", "DEPTH   =   3").replace("2**13", "8_192")
    same = same.replace("0.02", "2e-2").replace("A train file", "Another")
    assert tree_key(same) == tree_key(SOURCE)
    assert tree_key('def f():\n    """One."""\n    return 1\n') == tree_key("def f():\n    return 1  # one\n")


def test_a_changed_number_name_or_type_makes_a_difference():
    for before, after in (("0.02", "0.021"), ("DEPTH", "DEEP"), ("DEPTH = 3", "DEPTH = 3.0"), ("0.8", "-0.8")):
        assert tree_key(SOURCE.replace(before, after)) != tree_key(SOURCE)
    assert tree_key(SOURCE + "x = 1\n") != tree_key(SOURCE)


def test_a_source_that_does_not_parse_has_a_key_of_its_own():
    assert tree_key("def (") == tree_key("def (") != tree_key("def ((")


def test_a_structure_is_what_is_left_when_numbers_are_taken_out():
    assert structure_key(SOURCE.replace("0.02", "0.5")) == structure_key(SOURCE)
    assert structure_key(SOURCE.replace('"demo"', '"mac"')) != structure_key(SOURCE)
    assert structure_key(SOURCE + "x = 1\n") != structure_key(SOURCE)


def test_statements_are_read_one_by_one_wherever_they_stand():
    spread = "x = 1\n@decorated\ndef f():\n    pass\n"
    assert statements(spread) == ("x = 1", "@decorated\ndef f():\n    pass")
    assert statements("a = 1; b = 2\n") == ("a = 1; b = 2",)
    shared = "a = (1,\n 2); b = (3,\n 4)\n"
    assert statements(shared) == (shared,)
    assert statements(SOURCE + "def (") is None
    assert tree_key("a = 1; b = 2\n") == tree_key("a = 1\n\n\nb = 2") != tree_key("b = 2\na = 1")
