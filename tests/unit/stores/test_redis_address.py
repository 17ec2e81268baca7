"""Addresses of every form, and that nothing shown ever holds the user or the password."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.stores.redis_address import RedisAddress, parse_address, with_password_of

USER, PASSWORD = "someone", "hunter2"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress(shown="redis://cache:6379/0", host="cache")),
        ("redis://cache/", RedisAddress(shown="redis://cache:6379/0", host="cache")),
        (
            "redis://someone:hunter2@cache:7000/3",
            RedisAddress(
                shown="redis://cache:7000/3", host="cache", port=7000, database=3, username=USER, password=PASSWORD
            ),
        ),
        ("redis://:hunter2@cache", RedisAddress(shown="redis://cache:6379/0", host="cache", password=PASSWORD)),
        ("rediss://[::1]:7000", RedisAddress(shown="rediss://[::1]:7000/0", is_tls=True, host="::1", port=7000)),
        ("unix:///run/redis.sock", RedisAddress(shown="unix:///run/redis.sock", path="/run/redis.sock")),
        ("unix:///a%20b/redis.sock", RedisAddress(shown="unix:///a%20b/redis.sock", path="/a b/redis.sock")),
        (
            "unix://someone:hunter2@/run/redis.sock?db=2",
            RedisAddress(
                shown="unix:///run/redis.sock?db=2",
                path="/run/redis.sock",
                database=2,
                username=USER,
                password=PASSWORD,
            ),
        ),
    ],
)
def test_an_address_is_taken_apart(url: str, address: RedisAddress) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://", "stores.url names no host"),
        ("redis://:hunter2@", "stores.url names no host"),
        ("redis://someone:hunter2/more@cache", "the host or port cannot be read; special characters"),
        ("redis://someone:hunter2#more@cache", "special characters"),
        ("redis://someone:hunter2?more@cache", "special characters"),
        ("redis://cache:port", "the host or port cannot be read"),
        ("redis://cache:99999", "the host or port cannot be read"),
        ("redis://[::1", "the host or port cannot be read"),
        ("redis://cache/first", "the database must be a number"),
        ("redis://cache/-1", "the database must be a number"),
        ("redis://cache?ssl_cert_reqs=none", "unknown option"),
        ("redis://cache/0?db=1", "unknown option"),
        ("redis://a..b", "the host is not a valid name"),
        ("unix://run/redis.sock", "written as unix:///path/to/socket"),
        ("unix://", "written as unix:///path/to/socket"),
        ("unix:///run/redis.sock?db=x", "the database must be a number"),
        ("unix:///run/redis.sock?timeout=1", "unknown option"),
    ],
)
def test_an_address_of_another_form_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^stores\.url") as caught:
        parse_address(url)
    assert message in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", ["http://someone:hunter2@cache", "redis:someone:hunter2@cache", "", "hunter2"])
def test_other_kinds_of_address_are_refused_when_they_are_set(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^stores.url must begin with one of memory://, ") as caught:
        StoresConfig(url=url)
    assert PASSWORD not in str(caught.value)


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_user_and_password_can_be_written(username: str, password: str) -> None:
    address = parse_address(f"redis://{quote(username, safe='')}:{quote(password, safe='')}@cache:7000/3")
    assert (address.username, address.password) == (username, password)
    assert address.shown == "redis://cache:7000/3"


@given(st.text())
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    for scheme in ("redis://", "rediss://", "unix://"):
        refusal = ""
        try:
            parse_address(scheme + text)
        except ConfigError as error:
            refusal = str(error)
        assert refusal == "" or refusal.startswith("stores.url")


def test_no_representation_holds_the_password() -> None:
    url = "redis://someone:hunter2@cache"
    for value in (StoresConfig(url=url), parse_address(url)):
        assert PASSWORD not in repr(value)
        assert PASSWORD not in str(value)


def test_a_password_may_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret: with/all@signs\n", encoding="utf-8")
    address = with_password_of(str(secret), parse_address("redis://ann@host:1/2"))
    assert (address.username, address.password, address.host) == ("ann", "s3cret: with/all@signs", "host")
    assert "s3cret" not in repr(address)
    assert with_password_of("", address) is address


def test_a_password_has_one_place(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret", encoding="utf-8")
    with pytest.raises(ConfigError, match="both") as caught:
        with_password_of(str(secret), parse_address("redis://:other@host"))
    assert "s3cret" not in str(caught.value)
    assert "other" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        with_password_of(str(tmp_path / "missing"), parse_address("redis://host"))
    secret.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no text"):
        with_password_of(str(secret), parse_address("redis://host"))
