"""One look for all our HTML pages: a file that needs nothing else."""

from __future__ import annotations

import base64
from html import escape


def document(title: str, body: str, style: str = "", head: str = "") -> str:
    """The text of a page: `body` is HTML, `title` is not; `style` comes after the common one."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{head}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{style}</style></head>'
        f"<body>{body}</body></html>\n"
    )


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """A picture inside of the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


STYLE = """
:root{color-scheme:light dark;--page:#f6f5f2;--card:#fff;--ink:#23211c;--soft:#77736a;--rule:#e4e1d9;
--a:#2a6fdb;--b:#c2571a}
@media(prefers-color-scheme:dark){:root{--page:#16171a;--card:#1f2126;--ink:#e8e6e1;--soft:#96938c;--rule:#33363d;
--a:#6ea8ff;--b:#f0955a}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px}h1{font-size:28px;margin:0}h2{font-size:15px;margin:0 0 8px}
code{font:13px ui-monospace,monospace;color:var(--soft);overflow-wrap:anywhere}.command{margin:4px 0 20px}
.bar{height:8px;border-radius:4px;background:var(--rule);overflow:hidden}.bar div{height:100%;background:var(--a)}
dl{display:flex;flex-wrap:wrap;gap:8px 36px;margin:16px 0 24px}dt{color:var(--soft);font-size:13px}
dd{margin:0;font-size:19px;font-variant-numeric:tabular-nums}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px;margin:0 0 16px;min-width:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:0 16px}
img{display:block;max-width:100%;width:min(640px,100%);margin:0 auto;image-rendering:pixelated;border-radius:6px}
img[hidden]{display:none}label{display:flex;gap:14px;align-items:center;margin-top:12px}input{flex:1;accent-color:var(--a)}
output,.note{color:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}.note{margin:6px 0 0}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
.rule{stroke:var(--rule)}polyline{fill:none;stroke-width:2;stroke-linejoin:round}polyline.a{stroke:var(--a)}
polyline.b{stroke:var(--b)}line.a{stroke:var(--a)}line.b{stroke:var(--b)}polyline.faint,line.faint{stroke:var(--soft);opacity:.45;stroke-width:1.2}circle.a{fill:var(--a)}
circle.b{fill:var(--b)}circle.faint{fill:var(--soft);opacity:.5}summary{cursor:pointer}summary h2{display:inline}
table{border-collapse:collapse;width:100%;margin-top:10px;font-size:13px}th{text-align:left;color:var(--soft);font-weight:500}
th,td{padding:5px 14px 5px 0;border-top:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}
"""
