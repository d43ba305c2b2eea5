# The static server, its licences and little else.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --target "$target" \
    && mkdir /out \
    && cp "target/$target/release/rivero" /out/rivero \
    && strip --strip-debug /out/rivero \
    && scripts/third-party "$target" > /out/THIRD-PARTY-LICENCES.txt

FROM scratch
COPY --from=build /out/rivero /usr/bin/rivero
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/THIRD-PARTY-LICENCES.txt /usr/share/doc/rivero/
COPY LICENSE /usr/share/doc/rivero/
USER 65532:65532
EXPOSE 8888/tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s --retries=3 CMD ["/usr/bin/rivero", "health"]
ENTRYPOINT ["/usr/bin/rivero"]
# Inside a container the loopback address is nobody's; who may reach the port is the host's decision.
CMD ["--bind", "0.0.0.0"]
