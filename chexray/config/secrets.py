"""What must not be written where others read it: keys, tokens and passwords, by their names or by how they look.

A command line is shown by `ps` and by Ray's dashboard; a run's folder repeats its config. Both must hold no secret, and
no message about one repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from chexray.errors import ConfigError

_STRONG = {
    "secret", "secrets", "token", "password", "passwd", "passphrase", "credential", "credentials",
    "apikey", "secretkey", "accesskey", "privatekey", "authtoken",
}  # fmt: skip
"""Words that make a name that of a secret wherever they stand in it."""
_WEAK = {"pass", "pwd", "passwort", "pat", "auth", "key", "keys", "pin", "sas", "dsn", "cookie", "bearer", "jwt", "pw"}
"""The same in the environment, where most names are those of settings of other programs; `PATH` is none of them."""
_INSIDE = re.compile(r"passw|passphrase|secret|token|credential|(?:pass|pwd|_key|apikey)$", re.IGNORECASE)
"""What tells a secret although words run together: DBPASS, HFTOKEN."""
STORAGE_SECRETS = {"key", "secret", "token"}

_LOOKS = re.compile(
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"  # AWS
    r"|\b(?:hf_|sk-(?:ant-|proj-)?)[A-Za-z0-9]{20,}|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,2000}\."  # a JSON web token
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY"
    r"|\b(?:AccountKey|SharedAccessSignature)=|(?i:\b(?:password|pwd|passwd|secret|api_?key|access_?token)=[^&\s;])"
    r"|(?i:\bbearer [A-Za-z0-9+/_.=-]{16,})"
)
# Repetitions are bounded: a text of a million characters must not take a minute.
_LOGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,20}:/{1,2}[^/\s?#]{0,400}@"
    r"|[A-Za-z][A-Za-z0-9+.-]{0,20}://(?!arn:)[^/\s:@]{1,200}:(?!\d{1,5}(?:/|$))[^\s@]{0,400}@"  # a/b as password
    # Slashes left out, or no scheme.
    r"|(?:\b(?:s3a?|https?|gc?s|az|abfss?|ftp|hf):|^//)[^/\s@:]{1,200}:[^/\s@]{1,400}@"
)
"""A user, or a user and a password, in front of the host of a URL."""
_CONTAINER = re.compile(r"\babfss?://[a-z0-9-]{1,63}@(?=[a-z0-9]{1,24}\.(?:dfs|blob)\.core\.[a-z.]{1,40}(?:[/\s]|$))")
"""Azure has a container in front of the "@"."""
_SIGNED = re.compile(
    r"[?&;](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|token|access_?token"
    r"|auth(?:_?token)?|api_?key|key|secret|password|pwd|Key-Pair-Id|Policy)=",
    re.IGNORECASE,
)

ON_COMMAND_LINE = (
    "every user of this machine (ps) and of Ray's dashboard can read a command line. Set AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the environment, or write them as storage: {key, secret, token} "
    "into a config file that only you can read (chmod 600)."
)


def refuse_on_command_line(override: str, parsed: object = None) -> None:
    """Raises ConfigError, without the value, when `--set KEY=VALUE` gives a secret; parsed: VALUE as data."""
    key, found, value = override.partition("=")
    parts = _words(key)
    names = [*parts, *(word for path in _keys(parsed) for word in _words(path))]
    in_storage = bool(parts) and parts[0] == "storage"
    if in_storage and not found:
        names += _words(value)
    if parts == ["storage"] and isinstance(parsed, str):  # what is no YAML may still say secret: ...
        names += [word for name in re.findall(r"([\w .-]{1,60}?)[\"']?\s{0,9}[:=]", parsed) for word in _words(name)]
    weak = STORAGE_SECRETS | _WEAK if in_storage else set()
    if _is_strong(names) or weak & set(names):
        raise ConfigError(
            f"--set {'storage' if in_storage else 'KEY=VALUE'}: a secret was given, and {ON_COMMAND_LINE}"
        )
    if looks_secret(override):
        raise ConfigError(f"--set: a value looks like a key or a token, and {ON_COMMAND_LINE}")


def is_secret_name(name: str) -> bool:
    """Whether a name, of an environment variable say, is that of a secret: DB_PASS, MY_PAT, apiKey, HF_TOKEN."""
    words = _words(name)
    return _is_strong(words) or bool(_WEAK & set(words)) or bool(_INSIDE.search(name))


def looks_secret(text: str) -> bool:
    """Whether a value looks like a key, a token, a private key, or a text to connect with that holds a password."""
    return bool(_LOOKS.search(text)) or bool(url_problem(text))


def url_problem(text: str) -> str:
    """Why a location must not be repeated: "signed or holds a token", "holds a user or password"; "" when it may."""
    if "@" in text and _LOGIN.search(_CONTAINER.sub("abfs://", text) if "abfs" in text else text):
        return "holds a user or password"
    return "is signed or holds a token" if "://" in text and _SIGNED.search(text) else ""


def problem_of(path: str, value: object) -> str:
    """What is wrong with a setting of a config that is repeated in results, without the value; "" when nothing is."""
    if path in {f"storage.{name}" for name in STORAGE_SECRETS}:
        return ""
    last = path.rpartition(".")[2]
    if value not in (None, "") and not isinstance(value, bool | dict | list) and last.lower().strip() in _EXACT:
        return f"{last}: results repeat settings, so none may hold a secret: {_ENVIRONMENT}"
    for text in (value, last):
        if not isinstance(text, str):
            continue
        if why := url_problem(text):
            scheme = re.match(r"[A-Za-z0-9+.-]{1,12}(?=:)", text)
            move = "fetch it once, and name the file" if "signed" in why else "put credentials in the environment"
            return f"a {scheme[0] if scheme else 'URL'}:// location {why}: {move}"
        if _LOOKS.search(text):
            return f"a value looks like a key, a token or a password, and results repeat settings: {_ENVIRONMENT}"
    return ""


_EXACT = _STRONG | {"api_key", "access_key", "secret_key", "access_token", "auth_token", "private_key", "pwd", "passw"}
_ENVIRONMENT = "put it in the environment"


def refuse_in_location(text: str, what: str) -> None:
    """Raises ConfigError, without the text, for a path or URL of the command line that holds credentials."""
    if why := url_problem(text):
        raise ConfigError(f"{what}: the location {why}, and messages repeat it. Put credentials in the environment.")


def _is_strong(words: Iterable[str]) -> bool:
    words = list(words)
    pairs = {first + second for first, second in pairwise(words)}
    return bool(_STRONG & (set(words) | pairs))


def _words(name: str) -> list[str]:
    """`dbPass`, `DB_PASS` and `db.pass` to ["db", "pass"]; the name of a KMS key says no secret."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower()
    return re.findall(r"[a-z0-9]+", parted.replace("kms_key_id", "kms_id"))


def _keys(data: object) -> Iterator[str]:
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (key for key in value if isinstance(key, str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
