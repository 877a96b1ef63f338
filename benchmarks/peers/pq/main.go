// lib/pq: its Listener, which reconnects and replays by itself.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lib/pq"
)

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// options returns the name=value arguments.
func options() map[string]string {
	values := map[string]string{}
	for _, argument := range os.Args[2:] {
		if parts := strings.SplitN(argument, "=", 2); len(parts) == 2 {
			values[parts[0]] = parts[1]
		}
	}
	return values
}

func listen(listener *pq.Listener, channel string) {
	if err := listener.Listen(channel); err != nil {
		log.Fatal(err)
	}
}

func burst(listener *pq.Listener, count int) {
	listen(listener, "bench")
	received, before, began := 0, cpu(), time.Now()
	fmt.Println(`{"ready": {}}`)
	for received < count {
		if notification := <-listener.Notify; notification != nil {
			received++
		}
	}
	fmt.Printf(`{"done": {"received": %d, "cpu": %f, "wall": %f}}`+"\n",
		received, cpu()-before, time.Since(began).Seconds())
}

func recovery(listener *pq.Listener, others int) {
	for number := 0; number < others; number++ {
		listen(listener, fmt.Sprintf("other_%d", number))
	}
	listen(listener, "bench")
	fmt.Println(`{"ready": {}}`)
	for notification := range listener.Notify {
		if notification != nil { // nil tells of a reconnect
			fmt.Println(`{"back": {}}`)
			return
		}
	}
}

func main() {
	values := options()
	listener := pq.NewListener(os.Args[1], 10*time.Millisecond, time.Minute, nil)
	if values["workload"] == "recovery" {
		others, _ := strconv.Atoi(values["others"])
		recovery(listener, others)
		return
	}
	count, _ := strconv.Atoi(values["count"])
	burst(listener, count)
}
