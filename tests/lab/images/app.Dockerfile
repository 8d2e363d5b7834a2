# The lab's application, on the same Debian tree as the sidecar: one layer to load instead of two.
ARG BASE=mesh-base:lab
FROM ${BASE}
COPY app.py /app.py
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-u", "/app.py"]
CMD ["serve"]
