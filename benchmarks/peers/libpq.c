/* libpq, in C: the least that a client can do with a notification. */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static long resident(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024L;
}

/* The value of a `name=value` argument. */
static long number(int argc, char **argv, const char *name)
{
    size_t length = strlen(name);
    for (int i = 2; i < argc; i++)
        if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
            return atol(argv[i] + length + 1);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    PGconn *connection = PQconnectdb(argv[1]);
    if (PQstatus(connection) != CONNECTION_OK)
        return fprintf(stderr, "%s", PQerrorMessage(connection)), 1;
    PQclear(PQexec(connection, "LISTEN bench"));

    long count = number(argc, argv, "count"), received = 0, memory = resident();
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    puts("{\"ready\": {}}");
    fflush(stdout);
    struct pollfd readable = {.fd = PQsocket(connection), .events = POLLIN};
    while (received < count) {
        if (poll(&readable, 1, -1) < 0 || !PQconsumeInput(connection))
            return fprintf(stderr, "%s", PQerrorMessage(connection)), 1;
        for (PGnotify *one; (one = PQnotifies(connection)); PQfreemem(one))
            received++;
    }
    printf("{\"done\": {\"received\": %ld, \"cpu\": %f, \"wall\": %f, \"memory\": %ld}}\n",
           received, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, seconds(CLOCK_MONOTONIC) - wall,
           resident() - memory);
    fflush(stdout);
    PQfinish(connection);
    return 0;
}
