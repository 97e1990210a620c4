"""Sources that web servers hold: asked for politely, and never where a stranger's address points inside.

A row of a list may name any host. So the host's addresses are looked up once, all of them must be public,
and the connection goes to one of those that were looked at; the same holds for every redirect. What a
server says against the use of a source is on record, and honoured unless the user says otherwise.
"""

from curation.sources.web.addresses import is_web, web_address
from curation.sources.web.client import FromWeb, OptedOut, WebClient
from curation.sources.web.settings import WebConfig
from curation.sources.web.turns import HostTurns, Turns

__all__ = [
    "FromWeb",
    "HostTurns",
    "OptedOut",
    "Turns",
    "WebClient",
    "WebConfig",
    "is_web",
    "web_address",
]
