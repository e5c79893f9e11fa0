# docker build --build-arg GIT_COMMIT="$(git rev-parse --short HEAD)" .
#                                                                    the service, which shows the commit with its version
# docker build --target debug --build-arg PROFILE=debugging .        the unoptimised service under gdbserver

# A profile of Cargo.toml, release or debugging, which is also the name of its folder in target/.
ARG PROFILE=release
# A variable may name each by its digest: docs/docker.md, "Images by digest".
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG DEBUG_IMAGE=debian:bookworm-slim

# The manifest and the lock file without the version of the service, so that a release keeps the layer of the dependencies.
FROM ${BUILD_IMAGE} AS manifest
WORKDIR /manifest
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^name = "segment-estimator"$/{n;s/^version = .*/version = "0.0.0"/}' Cargo.toml Cargo.lock


FROM ${BUILD_IMAGE} AS build
ARG PROFILE
# The debugger maps this folder to the checkout: see .vscode/launch.json.
WORKDIR /app

# Dependencies have a layer of their own, which is rebuilt only when they change. Cargo also reads the manifest of the browser
# tests, since they are in the workspace, but builds nothing of them.
# Without rust-toolchain.toml: it would download clippy and rustfmt, and the image is the toolchain.
COPY --from=manifest /manifest ./
COPY tests/e2e/Cargo.toml tests/e2e/
# Cargo compares times, and the real sources may be older than this build, so our part of it is removed.
RUN mkdir src \
    && echo '//! Empty.' > src/lib.rs \
    && printf '//! Empty.\nfn main() {}\n' > src/main.rs \
    && cargo build --locked --profile "$PROFILE" \
    && cargo clean --profile "$PROFILE" --package segment-estimator
COPY scripts/licence-texts scripts/
RUN scripts/licence-texts >licences.txt && rm -r src

# An empty file of keys, for the volume that compose mounts here.
RUN mkdir keys && touch keys/api-keys.toml

COPY Cargo.toml Cargo.lock build.rs* ./
COPY src src
# For --version, the log and the metrics. The build has no .git to ask.
ARG GIT_COMMIT
RUN cargo build --locked --profile "$PROFILE" && cp "target/$PROFILE/segment-estimator" .


FROM ${DEBUG_IMAGE} AS debug
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gdbserver \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /app/segment-estimator /app/
COPY --from=build --chown=65532:65532 /app/keys /keys
USER 65532:65532
ENV ESTIMATOR_LISTEN=[::]:8080 RUST_BACKTRACE=1
EXPOSE 8080 2345
# Docker's seccomp profile forbids disabling address randomization, and breakpoints don't need it.
ENTRYPOINT ["gdbserver", "--no-disable-randomization", "0.0.0.0:2345", "/app/segment-estimator"]


# The last stage is the default target. It has the C library, the CAs of Debian in /etc/ssl/certs and no shell.
FROM ${RUNTIME_IMAGE}
COPY --from=build /app/segment-estimator /usr/local/bin/
# The licences of the crates require this: docs/docker.md, "Licences".
COPY --from=build /app/licences.txt /usr/share/doc/segment-estimator/
COPY LICENSE /usr/share/doc/segment-estimator/
# A new volume mounted here takes over the contents and the owner, so the service can read keys from it and `token` can add some.
COPY --from=build --chown=65532:65532 /app/keys /keys
# The image's user, as numbers: Kubernetes checks runAsNonRoot by them.
USER 65532:65532
# IPv4 and IPv6, or IPv4 alone if there is no IPv6.
ENV ESTIMATOR_LISTEN=[::]:8080
EXPOSE 8080
# The command ends by itself after 5 s, and then says why.
HEALTHCHECK --interval=5s --timeout=6s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/segment-estimator", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/segment-estimator"]
# The version of Cargo.toml.
ARG VERSION=0.1.0
ARG GIT_COMMIT
LABEL org.opencontainers.image.title="segment-estimator" \
    org.opencontainers.image.description="Counts how many users are in a segment right now, exactly, on Redis sorted sets" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${GIT_COMMIT}" \
    org.opencontainers.image.licenses="MIT"
