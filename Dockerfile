# The node: TypeScript is compiled in one stage, the other holds what runs. PostgreSQL is another container,
# so the embedded one (an optional dependency) stays outside.
FROM node:24-bookworm-slim AS build
WORKDIR /popgres
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build

FROM node:24-bookworm-slim
WORKDIR /popgres
ENV NODE_ENV=production
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --omit=dev --omit=optional && npm cache clean --force
COPY migrations migrations
COPY --from=build /popgres/dist dist
USER node
ENTRYPOINT ["node", "dist/main.js"]
CMD ["serve"]
