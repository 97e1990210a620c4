"""How web servers are asked for sources."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """How web servers are asked for sources over http(s); no row of a list can change it."""

    user_agent: str = "lavie/0.1"
    """Who servers are told is asking; robots.txt is read for the name before the '/'. Say how you can be
    reached, such as 'lavie/0.1 (+https://lab.example/crawl)': many servers refuse those who do not."""
    honour_opt_outs: bool = True
    """Leave out sources whose server says, by robots.txt or in its answer, that they may not be used
    (`opted_out`); else that is on record only (column `opt_out`)."""
    requests_per_host: int = 2
    """Requests to one host at a time, over all workers of a run."""
    delay_s: float = 1.0
    """Seconds from one request to a host to the next, over all workers of a run; robots.txt may ask for
    more."""
    patience_s: float = 60.0
    """Seconds that a server may give errors or no answer before a source is given up for this run."""
    timeout_s: float = 7200.0
    """Seconds that one source may take, with all tries."""
    min_bytes_per_s: float = 20_000.0
    """A server that sends less, from the first half minute on, is given up: the film would take days."""
    private_hosts: tuple[str, ...] = ()
    """Hosts with addresses inside a private network that may be asked, each as HOST or HOST:PORT (a port
    other than 80 and 443 must be named). All other such addresses are refused."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_-]+(/[!-~]*)?( [ -~]+)?", self.user_agent):
            raise ValueError(
                "web.user_agent must begin with a name of letters, such as 'lavie/0.1 (+https://...)', "
                f"got {self.user_agent!r}"
            )
        if self.requests_per_host < 1:
            raise ValueError(
                f"web.requests_per_host must be at least 1, got {self.requests_per_host}"
            )
        for name in ("delay_s", "patience_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"web.{name} must be at least 0, got {getattr(self, name)}")
        for name in ("timeout_s", "min_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"web.{name} must be over 0, got {getattr(self, name)}")
        for host in self.private_hosts:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(:\d{1,5})?", host):
                raise ValueError(f"web.private_hosts: HOST or HOST:PORT, got {host!r}")

    @property
    def robot(self) -> str:
        """The name that robots.txt may speak to."""
        return re.split(r"[/ ]", self.user_agent)[0]

    def allows_private(self, host: str, port: int) -> bool:
        """Whether a host may have an address inside a private network."""
        host = f"[{host}]" if ":" in host else host
        known = {name.lower() for name in self.private_hosts}
        return f"{host}:{port}" in known or (port in (80, 443) and host in known)
