"""nginx with the deployed configuration, in front of gateways."""

import re
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from provisioning.certificates import ensure_certificates
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import ROOT, Child, Command, Process
from tests.tools import skip_without_tool

TEMPLATE = ROOT / "deploy" / "nginx" / "templates" / "default.conf.template"
CONFIGURATION = """
daemon off; pid {folder}/pid; error_log stderr; user root;
events {{}}
http {{
    access_log off; types {{}} default_type text/plain;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {rendered}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """Addresses of nginx, and the certificate of its certificate authority."""

    https: str
    http: str
    authority: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def new_client(self) -> httpx.AsyncClient:
        return client(f"https://{self.https}", verify=self.trust)


def client(url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, **options)


@asynccontextmanager
async def run_nginx(folder: Path, *gateways: str) -> AsyncIterator[Nginx]:
    """Run nginx in front of gateways at these addresses."""
    program = shutil.which("nginx")
    if program is None:
        skip_without_tool("there is no nginx")
    authority, pair = ensure_certificates(folder, ["gateway"], datetime.now(UTC))
    http, https = free_ports(2)
    rendered = render(
        GATEWAY_SERVERS=" ".join(f"server {address};" for address in gateways),
        HTTP_LISTEN=f"{HOST}:{http}",
        HTTPS_LISTEN=f"{HOST}:{https}",
        PUBLIC_URL=f"https://{HOST}:{https}",
        HTTPS_CERTIFICATE=str(pair.certificate),
        HTTPS_KEY=str(pair.key),
    )
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, rendered=rendered))
    argv = [program, "-e", "stderr", "-c", str(folder / "nginx.conf")]

    async def command() -> Command:
        return Command(argv, {})

    async with Child(Process(name="nginx", command=command, ready=probes.tcp(HOST, https))):
        yield Nginx(f"{HOST}:{https}", f"{HOST}:{http}", authority.certificate)


def render(**variables: str) -> str:
    """Render the template as the official image does; a variable without a value is an error."""
    return re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], TEMPLATE.read_text())
