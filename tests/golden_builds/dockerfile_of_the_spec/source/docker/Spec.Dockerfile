FROM b:1
COPY . /app
