package main

import "google.golang.org/protobuf/encoding/protowire"

// fromProtobuf reads the four fields that deploy needs. To read them all, generate code from proto/modelready/v1/event.proto.
func fromProtobuf(data []byte) (e event, err error) {
	whole, err := texts(data)
	if err != nil {
		return e, err
	}
	model, err := texts(whole[5])
	if err != nil {
		return e, err
	}
	artifact, err := texts(whole[6])
	if err != nil {
		return e, err
	}
	e.EventID = string(whole[1])
	e.Model.Name, e.Model.Version = string(model[1]), string(model[2])
	e.Artifact.URI = string(artifact[1])
	return e, nil
}

// texts are the strings and messages in a message, by field number.
func texts(message []byte) (map[protowire.Number][]byte, error) {
	found := map[protowire.Number][]byte{}
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, protowire.ParseError(tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			found[number], _ = protowire.ConsumeBytes(message[tag:])
		}
		message = message[tag+size:]
	}
	return found, nil
}
