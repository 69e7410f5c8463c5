"""Parsing in threads."""

from __future__ import annotations

import ast
import threading
import time

from autoresearch.core.trainfile import parsing


def test_threads_parse_one_after_the_other(monkeypatch):
    under_way, most, real = [], [], ast.parse

    def slow(*arguments, **named):
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()
        return real(*arguments, **named)

    monkeypatch.setattr(parsing.ast, "parse", slow)
    work = [lambda: parsing.parse("a = 1"), lambda: parsing.parse_expression("a + 1")] * 4
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_what_is_no_python_raises_and_leaves_the_next_one_free():
    for text in ("def", "a\0b"):
        for parse in (parsing.parse, parsing.parse_expression):
            try:
                parse(text)
            except (SyntaxError, ValueError):
                continue
            raise AssertionError(text)
    assert isinstance(parsing.parse("a = 1").body[0], ast.Assign)
