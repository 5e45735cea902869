import LongspanKernels
import Testing

@testable import LongspanModels

@Suite(.serialized) struct ProfiledRunTests {
  private static let path = TestFiles.fixture("tiny/tied.gguf").path

  private static func run(
    _ model: LlamaModel, prompt: Int, generating: Int, chunk: Int, cacheType: ElementType = .f32,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> ProfiledRun {
    try ProfiledRun(
      of: model, prompt: (0..<Int32(prompt)).map { $0 % 50 }, generating: generating, chunk: chunk,
      cacheType: cacheType, progress: progress)
  }

  @Test func everyLayerMakesItsCalls() throws {
    let model = try LlamaModel(path: Self.path, context: KernelContext(threads: 2))
    var stages: [String] = []
    let run = try Self.run(model, prompt: 30, generating: 3, chunk: 16) {
      stages.append("\($0.stage) \($0.completed)/\($0.total)")
      return true
    }
    #expect(
      stages == [
        "reading 16/30", "reading 30/30", "generating 1/3", "generating 2/3", "generating 3/3",
      ])
    #expect(run.phases.map(\.name) == ["prefill", "decode"])
    #expect(run.phases.map(\.tokens) == [30, 3] && run.phases.map(\.steps) == [2, 3])
    #expect(run.recording.lostCalls == 0)
    let layers = model.configuration.layers
    for phase in run.phases {
      let calls = run.recording.calls.filter(phase.contains)
      func names(_ tag: Int) -> [String] { calls.filter { $0.tag == tag }.map(\.kernel.name) }
      let steps = phase.steps
      #expect(names(-1) == Array(repeating: "embedding", count: steps))
      let attention = phase.name == "prefill" ? "attention_prefill" : "attention_decode"
      let layer = [
        "rms_norm", "product", "rope", "convert", "rope", attention, "product", "rms_norm", "product",
        "product",
      ]
      for tag in 0..<layers {
        #expect(names(tag) == Array(repeating: layer, count: steps).flatMap { $0 })
      }
      // logits are made once for a prompt, and once for each token after it
      let logits = phase.name == "prefill" ? 1 : steps
      #expect(names(layers).filter { $0 == "product" }.count == logits)
      #expect(names(layers).count == steps + logits)
      #expect(calls.allSatisfy { $0.start + UInt64($0.nanoseconds) <= phase.end })
    }
    #expect(run.recording.calls.allSatisfy { call in run.phases.contains { $0.contains(call) } })
  }

  @Test func aPromptAloneIsOnePhase() throws {
    let model = try LlamaModel(path: Self.path, context: KernelContext(threads: 1))
    let run = try Self.run(model, prompt: 12, generating: 0, chunk: 512, cacheType: .bf16)
    #expect(run.phases.map(\.name) == ["prefill"])
    let attention = run.recording.calls.filter { $0.kernel == .attentionPrefill }
    #expect(attention.count == model.configuration.layers)
    #expect(attention.allSatisfy { $0.elementType == .bf16 && $0.name == "attention_prefill_bf16" })
  }

  @Test func whatCannotRunIsRefused() throws {
    let model = try LlamaModel(path: Self.path, context: KernelContext(threads: 1))
    func code(_ prompt: Int, _ generating: Int, _ chunk: Int) -> LongspanError.Code? {
      do throws(LongspanError) {
        _ = try Self.run(model, prompt: prompt, generating: generating, chunk: chunk)
        return nil
      } catch {
        return error.code
      }
    }
    #expect(code(0, 1, 1) == .invalidText)
    #expect(code(1, -1, 1) == .invalidArgument)
    #expect(code(1, 1, 0) == .invalidArgument)
    #expect(code(1, .max, 1) == .overflow)
    // a run that is stopped leaves the context free for the next
    #expect(throws: LongspanError.self) {
      try Self.run(model, prompt: 4, generating: 1, chunk: 2) { _ in false }
    }
    #expect(code(4, 1, 2) == nil)
  }
}
