// Publishes "this model version is ready":
//
//	go run ./example -target 127.0.0.1:50051 fraud 7 s3://models/fraud/7/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"

	"modelready"
	v1 "modelready/v1"
)

func main() {
	target := flag.String("target", "127.0.0.1:50051", "where the sidecar listens: host:port or unix:/path")
	flag.Parse()
	if flag.NArg() != 3 {
		log.Fatal("usage: example [-target TARGET] NAME VERSION URI")
	}
	publisher, err := modelready.New(*target, modelready.Options{
		Token:  os.Getenv("SIDECAR_API_TOKEN"),
		Source: "//registry.example",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer publisher.Close()

	receipt, err := publisher.Publish(context.Background(), &v1.ModelReadyToDeploy{
		Model:    &v1.ModelVersion{Name: flag.Arg(0), Version: flag.Arg(1)},
		Artifact: &v1.Artifact{Uri: flag.Arg(2)},
	})
	var failure *modelready.Error
	switch {
	case errors.Is(err, modelready.ErrInvalidEvent): // the same event never succeeds
		log.Fatal("refused: ", err)
	case errors.As(err, &failure): // publish it again later, with the same id
		log.Fatalf("%v (%s, event %s)", failure, failure.Code, failure.EventID)
	}
	fmt.Printf("event %s: %s %s\n", receipt.EventId, receipt.Outcome, receipt.EntryId)
}
