# The image for those who build with Docker. "make image" makes the same file
# system without it: this runs the same program and unpacks what it made, so
# that build/image alone says what the image holds.
#
#   docker build -t registry.example.com/eks-hybrid-dra:dev .

FROM docker.io/library/golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go run ./build/image --output /tmp/image.tar \
 && mkdir /tmp/image /rootfs \
 && tar -xf /tmp/image.tar -C /tmp/image \
 && for layer in /tmp/image/*.tar.gz; do tar -xzpf "$layer" -C /rootfs; done

FROM scratch
LABEL org.opencontainers.image.title="eks-hybrid-dra" \
      org.opencontainers.image.source="https://github.com/eks-hybrid-dra/eks-hybrid-dra" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs/ /
ENV PATH=/usr/bin
USER 0:0
