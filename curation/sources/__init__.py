"""Which sources there are, and their bytes on the local disk.

A source is named by a file, a folder, a glob, an ``s3://``, ``gs://`` or ``hf://`` object or prefix, an
``http(s)://`` address, or a row of a list (CSV, JSON lines, Parquet). Listing reads the first bytes of files
whose names say nothing, and opens no other; whatever is wrong with one is found when it is fetched, and
becomes a reason in its row. What is left out is counted and named.

Links: one given on the command line is followed, once, when listing, for the user asked for it. One
found in a folder, by a glob or in a list stays a row as it is, and the gate refuses it
('not_regular'): it may lead out of what the user meant to share. With `follow_links`, links in
folders are followed, to files and to folders, while they stay under the given folders.

Credentials belong into the environment or the configuration of the cloud's tools: a URI that
carries some is refused, so that none can get into a corpus or a log.
"""

from curation.sources.fetched import Fetched, fetched
from curation.sources.folders import LeftOut
from curation.sources.listing import list_sources
from curation.sources.lists import row_prefixes
from curation.sources.seen import SeenFolders
from curation.sources.uris import local_path, redacted, uri_of
from curation.sources.web import HostTurns, OptedOut, Turns, WebClient, WebConfig, is_web

__all__ = [
    "Fetched",
    "HostTurns",
    "LeftOut",
    "OptedOut",
    "SeenFolders",
    "Turns",
    "WebClient",
    "WebConfig",
    "fetched",
    "is_web",
    "list_sources",
    "local_path",
    "redacted",
    "row_prefixes",
    "uri_of",
]
