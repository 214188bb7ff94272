// SPDX-License-Identifier: Apache-2.0

// Renders a chart by Helm's own engine, or reads plain manifests, and prints the objects as a JSON list, for chart_test.py.
//
//	helm-render CHART RELEASE NAMESPACE [VALUES.json]
//	helm-render --plain FILE...
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

var between = regexp.MustCompile(`(?m)^---$`)

// Appends the objects of a file of several documents.
func appendObjects(objects []any, name string, text string) ([]any, error) {
	for _, part := range between.Split(text, -1) {
		var object any
		if err := yaml.Unmarshal([]byte(part), &object); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, part)
		}
		if object != nil {
			objects = append(objects, object)
		}
	}
	return objects, nil
}

func plain(files []string) ([]any, error) {
	var objects []any
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if objects, err = appendObjects(objects, name, string(text)); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func render(path, release, namespace string, values map[string]any) ([]any, error) {
	chart, err := loader.Load(path)
	if err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, IsInstall: true}
	// Checks the schema too.
	full, err := chartutil.ToRenderValues(chart, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(chart, full)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		if filepath.Ext(name) == ".yaml" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var objects []any
	for _, crd := range chart.CRDObjects() {
		if objects, err = appendObjects(objects, crd.Name, string(crd.File.Data)); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if objects, err = appendObjects(objects, name, files[name]); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func run(arguments []string) ([]any, error) {
	if len(arguments) > 1 && arguments[0] == "--plain" {
		return plain(arguments[1:])
	}
	if len(arguments) < 3 {
		return nil, fmt.Errorf("usage: helm-render CHART RELEASE NAMESPACE [VALUES.json]; helm-render --plain FILE...")
	}
	values := map[string]any{}
	if len(arguments) > 3 {
		text, err := os.ReadFile(arguments[3])
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(text, &values); err != nil {
			return nil, err
		}
	}
	return render(arguments[0], arguments[1], arguments[2], values)
}

func main() {
	objects, err := run(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(objects)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm-render:", err)
		os.Exit(1)
	}
}
