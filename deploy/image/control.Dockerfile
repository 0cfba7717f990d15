# Control plane. Build in the root of the repository: docker build -f deploy/image/control.Dockerfile -t kadomori/control:VERSION .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/ ./controlplane/cmd/...

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/kadomori-control /out/kadomori /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["kadomori-control"]
CMD ["serve", "--config", "/etc/kadomori/control/control.yaml"]
