# Reporter. Build in the root of the repository: docker build -f deploy/image/reporter.Dockerfile -t kadomori/reporter:VERSION .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/ ./reporter/cmd/...

FROM debian:12-slim
# The python3-* names are alternatives in the renderer's dependencies; without them a C++ toolchain comes along.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates weasyprint python3-munkres python3-ufolib2 \
      python3-unicodedata2 fonts-morisawa-bizud-gothic fonts-noto-cjk && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/kadomori-reporter /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["kadomori-reporter"]
CMD ["serve", "--config", "/etc/kadomori/reporter/reporter.yaml"]
