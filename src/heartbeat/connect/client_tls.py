"""TLS properties of Kafka's Java clients, translated for librdkafka, which reads PEM and PKCS12 but none of Java's own stores.

Source: Kafka 4.1 ``DefaultSslEngineFactory``.
"""

from __future__ import annotations

import re

from heartbeat.connect.client_draft import Draft


def _store_type(draft: Draft, store: str) -> str:
    location = draft.given.get(f"{store}.location", "").lower()
    guess = "PKCS12" if location.endswith((".p12", ".pfx")) else "PEM" if location.endswith((".pem", ".crt", ".cer")) else "JKS"
    return draft.given.get(f"{store}.type", "").upper() or guess


def _no_store(kind: str) -> str:
    return f"A store of type {kind} cannot be read here (JKS is the default, as in Java, unless the name ends in .p12, .pfx or .pem)."


def key_store(draft: Draft) -> None:
    """Take our own key and certificate."""
    location, password = draft.given.get("ssl.keystore.location"), draft.given.get("ssl.keystore.password")
    key, chain = draft.given.get("ssl.keystore.key"), draft.given.get("ssl.keystore.certificate.chain")
    kind = _store_type(draft, "ssl.keystore")
    if key or chain:
        if not (key and chain):
            draft.fail("ssl.keystore.key", "The private key and the certificate chain must be given together")
        elif location or password:
            draft.fail("ssl.keystore.key", "Both SSL key store location or password and separate private key are specified.")
        else:
            draft.properties |= {"ssl.key.pem": pem(key), "ssl.certificate.pem": pem(chain)}
    elif not location:
        if password:
            draft.fail("ssl.keystore.password", "SSL key store is not specified, but key store password is specified.")
    elif kind == "PEM":
        if password:
            draft.fail("ssl.keystore.password", "SSL key store password cannot be specified with PEM format, only key password")
        draft.properties |= {"ssl.key.location": location, "ssl.certificate.location": location}
    elif kind == "PKCS12":
        if not password:
            draft.fail("ssl.keystore.location", "SSL key store is specified, but key store password is not specified.")
        draft.properties |= {"ssl.keystore.location": location, "ssl.keystore.password": password or ""}
    else:
        command = f"keytool -importkeystore -srckeystore {location} -destkeystore client.p12 -deststoretype PKCS12"
        draft.fail("ssl.keystore.location", f'{_no_store(kind)} Convert it with "{command}" and set ssl.keystore.type=PKCS12, or use PEM')


def trust_store(draft: Draft) -> None:
    """Take the authorities to trust."""
    location, certificates = draft.given.get("ssl.truststore.location"), draft.given.get("ssl.truststore.certificates")
    kind = _store_type(draft, "ssl.truststore")
    if draft.has("ssl.ca.location", "ssl.ca.pem"):
        draft.dropped += [name for name in ("ssl.truststore.location", "ssl.truststore.certificates") if draft.has(name)]
    elif certificates and location:
        draft.fail("ssl.truststore.location", "Both SSL trust store location and separate trust certificates are specified.")
    elif certificates:
        draft.properties["ssl.ca.pem"] = pem(certificates)
    elif location and kind == "PEM":
        draft.properties["ssl.ca.location"] = location
    elif location:
        if kind == "PKCS12":
            command = f"openssl pkcs12 -in {location} -nokeys -out ca.pem"
        else:
            command = f"keytool -list -rfc -keystore {location} > ca.pem"
        substitute = "ssl.truststore.type=PEM, ssl.truststore.location=ca.pem"
        draft.fail("ssl.truststore.location", f'{_no_store(kind)} Write its certificates as PEM with "{command}" and set {substitute}')


def versions_and_ciphers(draft: Draft) -> None:
    """Take the protocol versions and cipher suites."""
    versions = draft.given.get("ssl.enabled.protocols", "")
    if versions and "TLSv1.2" not in (version.strip() for version in versions.split(",")):
        draft.fail("ssl.enabled.protocols", "This client offers TLSv1.2 and TLSv1.3, always both; restrict the version on the broker")
    # OpenSSL keeps TLS 1.3 suites in a list of their own, all enabled, and refuses a list that names only those.
    suites = [suite.strip() for suite in re.split("[,:]", draft.given.get("ssl.cipher.suites", ""))]
    older = [suite for suite in suites if suite and not suite.startswith(("TLS_AES_", "TLS_CHACHA20_"))]
    if older:
        draft.properties["ssl.cipher.suites"] = ":".join(older)
    elif draft.has("ssl.cipher.suites"):
        draft.dropped.append("ssl.cipher.suites")


def pem(text: str) -> str:
    """Break the lines of PEM blocks: Java reads them from one line, OpenSSL does not."""

    def block(match: re.Match[str]) -> str:
        body = "".join(match[2].split())
        lines = (body[start : start + 64] for start in range(0, len(body), 64))
        return "\n".join((f"-----BEGIN {match[1]}-----", *lines, f"-----END {match[1]}-----", ""))

    return re.sub(r"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END \1-----\n?", block, text)
