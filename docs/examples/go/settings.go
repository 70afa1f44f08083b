package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// optionsFromEnv reads the sidecar's variables.
func optionsFromEnv() (*redis.Options, error) {
	host := os.Getenv("REDIS_HOST")
	if host == "" {
		return nil, errors.New("REDIS_HOST is not set")
	}
	db, err := strconv.Atoi(env("REDIS_DB", "0"))
	if err != nil {
		return nil, fmt.Errorf("REDIS_DB: %w", err)
	}
	options := &redis.Options{
		Addr:            net.JoinHostPort(host, env("REDIS_PORT", "6379")),
		DB:              db,
		Username:        os.Getenv("REDIS_USERNAME"),
		Password:        os.Getenv("REDIS_AUTH_TOKEN"),
		MaxRetries:      -1, // a repeated command could write a dead letter twice; the loop tries again
		DisableIdentity: true,
	}
	loopback := host == "localhost" || net.ParseIP(host).IsLoopback()
	if secure, err := strconv.ParseBool(env("REDIS_TLS", strconv.FormatBool(!loopback))); err != nil {
		return nil, fmt.Errorf("REDIS_TLS: %w", err)
	} else if secure {
		options.TLSConfig, err = tlsFromEnv(host)
		return options, err
	}
	return options, nil
}

func tlsFromEnv(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if file := os.Getenv("REDIS_TLS_CA_FILE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("REDIS_TLS_CA_FILE holds no certificates")
		}
	}
	if file := os.Getenv("REDIS_TLS_CERT_FILE"); file != "" {
		certificate, err := tls.LoadX509KeyPair(file, os.Getenv("REDIS_TLS_KEY_FILE"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
