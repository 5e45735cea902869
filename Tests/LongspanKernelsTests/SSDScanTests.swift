import Foundation
import LongspanKernels
import Testing

/// A layer of 2 groups and its inputs, all f32.
private struct SSDLayer {
  let heads = 4
  let columns = 6
  let states = 5
  let groups = 2
  let tokens = 13
  let offsets: [Int64] = [0, 6, 6, 13]
  let input: [Float]
  let steps: [Float]
  let decay: [Float]
  let b: [Float]
  let c: [Float]
  let skip: [Float]
  let gate: [Float]
  let initial: [Float]
  /// Heads whose number is even drop every token whose step is not above 0.7.
  let rule: TimeStepRule

  init() {
    var random = SplitMix64(seed: 6)
    input = random.floats(tokens * heads * columns)
    steps = random.floats(tokens * heads)
    decay = random.floats(heads).map { -abs($0) }
    b = random.floats(tokens * groups * states)
    c = random.floats(tokens * groups * states)
    skip = random.floats(heads)
    gate = random.floats(tokens * heads * columns)
    initial = random.floats(3 * heads * columns * states)
    let bias = random.floats(heads)
    let thresholds = (0..<heads).map { $0 % 2 == 0 ? Float(0.7) : -1 }
    rule = TimeStepRule(bias: bias, appliesSoftplus: true, filter: TimeStepFilter(thresholds: thresholds))
  }

  /// The scan by its definition, in double precision.
  func reference() -> (output: [Double], state: [Double], kept: [Int64]) {
    var output = [Double](repeating: 0, count: tokens * heads * columns)
    var state = initial.map(Double.init)
    var kept = [Int64](repeating: 0, count: 3 * heads)
    for sequence in 0..<3 {
      for t in Int(offsets[sequence])..<Int(offsets[sequence + 1]) {
        for h in 0..<heads {
          let step = log(1 + exp(Double(steps[t * heads + h]) + Double(rule.bias[h])))
          let isKept = step > Double(rule.filter!.thresholds[h])
          kept[sequence * heads + h] += isKept ? 1 : 0
          for p in 0..<columns {
            let place = (t * heads + h) * columns + p
            let x = Double(input[place])
            var y = Double(skip[h]) * x
            for n in 0..<states {
              let at = ((sequence * heads + h) * columns + p) * states + n
              let group = (t * groups + h / (heads / groups)) * states + n
              if isKept { state[at] = exp(step * Double(decay[h])) * state[at] + step * Double(b[group]) * x }
              y += Double(c[group]) * state[at]
            }
            let z = Double(gate[place])
            output[place] = y * z / (1 + exp(-z))
          }
        }
      }
    }
    return (output, state, kept)
  }
}

@Suite(.serialized) struct SSDScanTests {
  @Test(
    arguments: KernelContext.variants.filter(\.isSupported).map(\.name),
    [SSDMethod.scan(.automatic), .scan(.recurrent), .scan(.chunked), .update])
  func matchesTheDefinition(isa: String, method: SSDMethod) throws {
    let layer = SSDLayer()
    let context = try KernelContext(threads: 2, isa: isa)
    let expected = layer.reference()
    var workspace = Workspace()
    var state = layer.initial
    var output = [Float](repeating: .nan, count: layer.input.count)
    var kept = [Int64](repeating: -1, count: 3 * layer.heads)
    var stateSpan = state.mutableSpan
    var outputSpan = output.mutableSpan
    var keptSpan = kept.mutableSpan
    let b = try TensorView(layer.b.span, tokens: layer.tokens, heads: layer.groups, columns: layer.states)
    let c = try TensorView(layer.c.span, tokens: layer.tokens, heads: layer.groups, columns: layer.states)
    try context.ssdScan(
      method,
      input: try TensorView(
        layer.input.span, tokens: layer.tokens, heads: layer.heads, columns: layer.columns),
      steps: try TensorView(layer.steps.span, tokens: layer.tokens, columns: layer.heads), rule: layer.rule,
      decay: layer.decay.span, b: b, c: c, skip: layer.skip.span,
      gate: try TensorView(layer.gate.span, tokens: layer.tokens, heads: layer.heads, columns: layer.columns),
      offsets: layer.offsets, state: &stateSpan, workspace: &workspace, into: &outputSpan, kept: &keptSpan)
    #expect(kept == expected.kept)
    for (got, want) in zip(output, expected.output) { #expect(abs(Double(got) - want) < 1e-5) }
    for (got, want) in zip(state, expected.state) { #expect(abs(Double(got) - want) < 1e-5) }
  }

  @Test func refusesWhatDoesNotFit() throws {
    let layer = SSDLayer()
    let context = try KernelContext(threads: 1)
    var workspace = Workspace()
    func run(
      _ method: SSDMethod = .scan(.automatic), heads: Int = 4, decay: Int = 4, skip: Int = 4,
      states: Int = 3 * 120,
      outputs: Int = 13 * 24, offsets: [Int64]? = nil
    ) throws {
      var state = [Float](repeating: 0, count: states)
      var output = [Float](repeating: 0, count: outputs)
      var stateSpan = state.mutableSpan
      var outputSpan = output.mutableSpan
      let decays = [Float](repeating: -1, count: decay)
      let skips = [Float](repeating: 1, count: skip)
      let b = try TensorView(layer.b.span, tokens: layer.tokens, heads: layer.groups, columns: layer.states)
      try context.ssdScan(
        method, input: try TensorView(layer.input.span, tokens: layer.tokens, heads: 4, columns: 6),
        steps: try TensorView(layer.steps.span, tokens: layer.tokens, columns: heads), rule: TimeStepRule(),
        decay: decays.span, b: b, c: b, skip: skips.span, gate: nil, offsets: offsets ?? layer.offsets,
        state: &stateSpan, workspace: &workspace, into: &outputSpan)
    }
    try run()
    try run(skip: 0)
    #expect(throws: LongspanError.self) { try run(heads: 3) }
    #expect(throws: LongspanError.self) { try run(decay: 3) }
    #expect(throws: LongspanError.self) { try run(skip: 3) }
    #expect(throws: LongspanError.self) { try run(states: 120) }
    #expect(throws: LongspanError.self) { try run(outputs: 12) }
    #expect(throws: LongspanError.self) { try run(offsets: [0, 12]) }
    #expect(throws: LongspanError.self) { try run(offsets: []) }
    #expect(throws: LongspanError.self) { try run(.update, states: 120, offsets: [0, 13]) }
  }
}
