"""The text of a keys file: every form of a line, every mistake with its line number, and never a key in a message."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.protection.keys import parse_keys

SECRET = "s3cret-key"
HASHED = f"sha256${hashlib.sha256(SECRET.encode()).hexdigest()}"

NAMES = st.from_regex(r"[A-Za-z0-9_.@-]{1,64}", fullmatch=True)
KEYS = st.from_regex(r"[!-~]{1,80}", fullmatch=True).filter(lambda key: not key.startswith("sha256$"))


@given(st.dictionaries(KEYS, NAMES, min_size=1, max_size=8), st.text())
def test_every_key_finds_its_owner_and_other_texts_find_nobody(owners: dict[str, str], other: str) -> None:
    keyring = parse_keys("".join(f"{name}:{key}\n" for key, name in owners.items()), "keys")
    assert {key: keyring.owner_of(key) for key in owners} == owners
    assert keyring.owner_of(other) == owners.get(other)


@given(st.text())
def test_any_text_is_a_keyring_or_a_clear_refusal(text: str) -> None:
    refusal = ""
    try:
        keyring = parse_keys(text, "keys")
    except ConfigError as error:
        refusal = str(error)
    assert refusal.startswith("keys") or keyring.owners


def test_comments_empty_lines_spaces_hashes_and_colons_in_keys() -> None:
    text = f"# people\n\n  anna : {SECRET}\nbots:a:b:c\r\n   # old\ncarl:{HASHED[:7]}{'0' * 64}\n"
    keyring = parse_keys(text, "keys")
    assert keyring.owner_of(SECRET) == "anna"
    assert keyring.owner_of("a:b:c") == "bots"
    assert keyring.owner_of(HASHED) is None


def test_a_hashed_key_opens_with_the_key_and_not_with_the_hash() -> None:
    for text in (f"anna:{HASHED}", f"anna:sha256${HASHED[7:].upper()}"):
        keyring = parse_keys(text, "keys")
        assert keyring.owner_of(SECRET) == "anna"
        assert keyring.owner_of(HASHED) is None


def test_one_name_may_have_two_keys() -> None:
    keyring = parse_keys(f"anna:{SECRET}\nanna:next\n", "keys")
    assert (keyring.owner_of(SECRET), keyring.owner_of("next")) == ("anna", "anna")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "keys holds no key; each line is name:key or name:sha256$hexdigest"),
        ("# nobody\n", "keys holds no key; each line is name:key or name:sha256$hexdigest"),
        (f"# first\n{SECRET}\n", "keys, line 2: must be name:key or name:sha256$hexdigest"),
        (f":{SECRET}", "keys, line 1: a name has 1 to 64 letters, digits or any of _ . @ -"),
        (f"an na:{SECRET}", "keys, line 1: a name has 1 to 64 letters, digits or any of _ . @ -"),
        (f"{'a' * 65}:{SECRET}", "keys, line 1: a name has 1 to 64 letters, digits or any of _ . @ -"),
        ("anna:", "keys, line 1: a key is made of printable ASCII characters without spaces; "),
        (f"anna:{SECRET} # hers", "keys, line 1: a key is made of printable ASCII characters without spaces; "),
        (f"anna:{SECRET}é", "keys, line 1: a key is made of printable ASCII characters without spaces; "),
        (f"anna:{HASHED[:-1]}", "keys, line 1: 64 hexadecimal digits must follow sha256$"),
        (f"anna:{HASHED[:-1]}x", "keys, line 1: 64 hexadecimal digits must follow sha256$"),
        (f"anna:{SECRET}\nbert:{SECRET}", "keys, line 2: line 1 has the same key"),
        (f"anna:{SECRET}\n\nbert:{HASHED}", "keys, line 3: line 1 has the same key"),
    ],
)
def test_a_line_of_another_form_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text, "keys")
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["\ud800", "\udcff key", "k" * 100_000, "\x00", "ключ"])
def test_whatever_comes_from_outside_is_only_unknown(text: str) -> None:
    assert parse_keys(f"anna:{SECRET}", "keys").owner_of(text) is None
