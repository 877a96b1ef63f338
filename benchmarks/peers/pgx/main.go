// pgx: WaitForNotification on one connection.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v4"
)

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// number returns the value of a name=value argument.
func number(name string) int {
	for _, argument := range os.Args[2:] {
		if value := strings.TrimPrefix(argument, name+"="); value != argument {
			result, _ := strconv.Atoi(value)
			return result
		}
	}
	return 0
}

func main() {
	everything := context.Background()
	connection, err := pgx.Connect(everything, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if _, err := connection.Exec(everything, "LISTEN bench"); err != nil {
		log.Fatal(err)
	}
	count, received, before, began := number("count"), 0, cpu(), time.Now()
	fmt.Println(`{"ready": {}}`)
	for ; received < count; received++ {
		if _, err := connection.WaitForNotification(everything); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf(`{"done": {"received": %d, "cpu": %f, "wall": %f}}`+"\n",
		received, cpu()-before, time.Since(began).Seconds())
}
