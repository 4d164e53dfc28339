// Renders conversations (JSON lines of messages) with a template as Ollama does (template/template.go): neighbouring messages of one role joined, the texts of
// system messages as .System.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct{ Role, Content string }

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(string(text)))
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var given []message
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			panic(err)
		}
		var joined []*message
		var system []string
		for i := range given {
			if given[i].Role == "system" {
				system = append(system, given[i].Content)
			}
			if last := len(joined) - 1; last >= 0 && joined[last].Role == given[i].Role {
				joined[last].Content += "\n\n" + given[i].Content
			} else {
				joined = append(joined, &given[i])
			}
		}
		var out strings.Builder
		if err := parsed.Execute(&out, map[string]any{"System": strings.Join(system, "\n\n"), "Messages": joined, "Response": ""}); err != nil {
			panic(err)
		}
		encoded, _ := json.Marshal(out.String())
		os.Stdout.Write(append(encoded, '\n'))
	}
}
