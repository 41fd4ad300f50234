//! Kernels and device functions: heads, bodies, instructions.

use std::collections::HashMap;

use super::declaration::parse_declaration;
use super::lexer::{body_statements, split_top_level, Statement};
use super::operand::{parse_operand, Names};
use super::registers::share_places;
use super::{declare_shared, module_symbol};
use crate::error::Error;
use crate::ir::*;
use crate::numeric::Rounding;
use crate::types::PtxType;

/// Names visible at one point of a body.
struct Scopes<'m> {
    module: &'m Module,
    function: Function,
    /// Innermost last; each has an id so that labels can be found in a second pass.
    stack: Vec<Scope>,
    labels: HashMap<(usize, String), u32>,
}

#[derive(Default)]
struct Scope {
    id: usize,
    registers: HashMap<String, u32>,
    symbols: HashMap<String, Operand>,
}

impl Names for Scopes<'_> {
    fn register(&self, name: &str) -> Option<u32> {
        let mut scopes = self.stack.iter().rev();
        scopes.find_map(|s| s.registers.get(name)).copied()
    }

    fn symbol(&mut self, name: &str) -> Option<Operand> {
        let mut scopes = self.stack.iter().rev();
        let found = scopes.find_map(|s| s.symbols.get(name)).cloned();
        let found = found.or_else(|| module_symbol(self.module, name));
        if let Some(Operand::Shared(var, _)) = found {
            if !self.function.shared_used.contains(&var) {
                self.function.shared_used.push(var);
            }
        }
        found
    }

    fn label(&self, name: &str) -> Option<u32> {
        let key = |scope: &Scope| (scope.id, name.to_string());
        let mut scopes = self.stack.iter().rev();
        scopes.find_map(|s| self.labels.get(&key(s))).copied()
    }
}

impl Scopes<'_> {
    fn declare(&mut self, name: String, operand: Operand) {
        if let Some(scope) = self.stack.last_mut() {
            scope.symbols.insert(name, operand);
        }
    }

    /// Reserves room in the frame of the function.
    fn frame_slot(&mut self, bytes: u64, align: u64) -> u64 {
        let offset = self.function.local_bytes.next_multiple_of(align.max(8));
        self.function.local_bytes = offset + bytes;
        offset
    }

    fn declare_registers(&mut self, text: &str, line: u32) -> Result<(), Error> {
        let (_, names) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::parse(line, format!("bad register declaration: {text}")))?;
        for name in split_top_level(names, ',') {
            let (base, count) = match name.split_once('<') {
                Some((base, count)) => (base.to_string(), count.trim_end_matches('>').parse().ok()),
                None => (name, None),
            };
            let mut add = |name: String| {
                let index = self.function.registers;
                self.function.registers += 1;
                if let Some(scope) = self.stack.last_mut() {
                    scope.registers.insert(name, index);
                }
            };
            match count {
                Some(count) => (0..count).for_each(|k: u32| add(format!("{base}{k}"))),
                None => add(base),
            }
        }
        Ok(())
    }
}

pub(crate) fn parse_function(text: &FunctionText, module: &Module) -> Result<Function, Error> {
    let mut scopes = Scopes {
        module,
        function: Function::default(),
        stack: vec![Scope::default()],
        labels: HashMap::new(),
    };
    parse_head(&text.head, text.line, &mut scopes)?;
    let statements = body_statements(&text.body, text.body_line)?;
    scopes.labels = collect_labels(&statements);
    let mut next_scope = 1;
    let mut source = None;
    let mut tables = branch_tables(&statements);
    for (statement, line) in statements {
        match statement {
            Statement::Open => {
                scopes.stack.push(Scope {
                    id: next_scope,
                    ..Scope::default()
                });
                next_scope += 1;
            }
            Statement::Close => {
                scopes.stack.pop();
            }
            Statement::Label(_) => {}
            Statement::Location(_, 0) => source = None,
            Statement::Location(file, line) => source = Some((file, line)),
            Statement::Directive(text) => directive(&text, line, &mut scopes)?,
            Statement::Instruction(text) => {
                let instruction = parse_instruction(text, line, source, &mut tables, &mut scopes)?;
                scopes.function.code.push(instruction);
            }
        }
    }
    share_places(&mut scopes.function);
    Ok(scopes.function)
}

/// The name in a function's head.
pub(super) fn name(head: &str, line: u32) -> Result<String, Error> {
    Ok(cut_head(head, line)?.name.to_string())
}

/// `.visible .entry name (params) .maxntid 128, 1, 1` or `.func (results) name (params)`.
struct Head<'h> {
    is_kernel: bool,
    results: &'h str,
    name: &'h str,
    params: &'h str,
    tuning: String,
}

fn cut_head(head: &str, line: u32) -> Result<Head<'_>, Error> {
    let fail = || Error::parse(line, format!("function head not understood: {head}"));
    let is_kernel = head.contains(".entry");
    let keyword = if is_kernel { ".entry" } else { ".func" };
    let (_, mut rest) = head.split_once(keyword).ok_or_else(fail)?;
    rest = rest.trim();
    let mut results = "";
    if let Some(after) = rest.strip_prefix('(') {
        let (inside, after) = after.split_once(')').ok_or_else(fail)?;
        results = inside;
        rest = after.trim();
    }
    let (before, after) = rest.split_once('(').unwrap_or((rest, ""));
    let (params, after) = after.rsplit_once(')').unwrap_or(("", after));
    let mut words = before.split_whitespace();
    Ok(Head {
        is_kernel,
        results,
        name: words.next().ok_or_else(fail)?,
        params,
        tuning: format!("{} {after}", words.collect::<Vec<_>>().join(" ")),
    })
}

fn parse_head(head: &str, line: u32, scopes: &mut Scopes) -> Result<(), Error> {
    let Head {
        is_kernel,
        results,
        name,
        params,
        tuning,
    } = cut_head(head, line)?;
    scopes.function.name = name.to_string();
    scopes.function.is_kernel = is_kernel;
    scopes.function.max_threads = thread_limit(&tuning);
    scopes.function.cluster =
        tuning.contains("nctapercluster") || tuning.contains(".explicitcluster");
    for text in split_top_level(params, ',') {
        let declaration = parse_declaration(&text, line)?;
        let (offset, operand) = if is_kernel {
            let offset = scopes
                .function
                .param_bytes
                .next_multiple_of(declaration.align);
            scopes.function.param_bytes = offset + declaration.bytes;
            (offset, Operand::Param(offset))
        } else {
            let offset = scopes.frame_slot(declaration.bytes, declaration.align);
            (offset, Operand::Local(offset))
        };
        let bytes = declaration.bytes;
        scopes.function.params.push(Formal { offset, bytes });
        scopes.declare(declaration.name, operand);
    }
    for text in split_top_level(results, ',') {
        let declaration = parse_declaration(&text, line)?;
        let offset = scopes.frame_slot(declaration.bytes, declaration.align);
        let bytes = declaration.bytes;
        scopes.function.results.push(Formal { offset, bytes });
        scopes.declare(declaration.name, Operand::Local(offset));
    }
    Ok(())
}

/// The product of the numbers after `.maxntid` or `.reqntid`.
fn thread_limit(tuning: &str) -> Option<u32> {
    let at = tuning.find(".maxntid").or(tuning.find(".reqntid"))?;
    let numbers = &tuning[at + ".maxntid".len()..];
    let end = numbers.find('.').unwrap_or(numbers.len());
    let numbers = numbers[..end].split(',').map(|n| n.trim().parse::<u32>());
    numbers
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .map(|n| n.iter().product())
}

/// First pass: the instruction index of every label, by scope.
fn collect_labels(statements: &[(Statement, u32)]) -> HashMap<(usize, String), u32> {
    let mut labels = HashMap::new();
    let (mut stack, mut next_scope, mut index) = (vec![0], 1, 0);
    for (statement, _) in statements {
        match statement {
            Statement::Open => {
                stack.push(next_scope);
                next_scope += 1;
            }
            Statement::Close => {
                stack.pop();
            }
            Statement::Label(name) => {
                let scope = stack.last().copied().unwrap_or(0);
                labels.insert((scope, name.clone()), index);
            }
            Statement::Instruction(_) => index += 1,
            _ => {}
        }
    }
    labels
}

/// `name: .branchtargets A, B, C;` -> name to list of labels.
fn branch_tables(statements: &[(Statement, u32)]) -> HashMap<String, Vec<String>> {
    let mut tables = HashMap::new();
    for pair in statements.windows(2) {
        if let [(Statement::Label(name), _), (Statement::Directive(text), _)] = pair {
            if let Some(targets) = text.strip_prefix(".branchtargets") {
                tables.insert(name.clone(), split_top_level(targets, ','));
            }
        }
    }
    tables
}

fn directive(text: &str, line: u32, scopes: &mut Scopes) -> Result<(), Error> {
    let word = text.split_whitespace().next().unwrap_or("");
    let rest = &text[word.len()..];
    match word {
        ".reg" => scopes.declare_registers(rest, line)?,
        ".shared" => {
            let declaration = parse_declaration(rest, line)?;
            let var = declare_shared(scopes.module, &declaration);
            scopes.function.shared_used.push(var);
            scopes.declare(declaration.name, Operand::Shared(var, 0));
        }
        ".local" | ".param" => {
            let declaration = parse_declaration(rest, line)?;
            let offset = scopes.frame_slot(declaration.bytes, declaration.align);
            scopes.declare(declaration.name, Operand::Local(offset));
        }
        ".pragma" | ".branchtargets" | ".callprototype" | ".calltargets" | ".noreturn" => {}
        _ => return Err(Error::parse(line, format!("unknown directive: {text}"))),
    }
    Ok(())
}

fn parse_instruction(
    text: String,
    ptx_line: u32,
    source: Option<(u32, u32)>,
    tables: &mut HashMap<String, Vec<String>>,
    scopes: &mut Scopes,
) -> Result<Instruction, Error> {
    let fail = |what: String| Error::parse(ptx_line, format!("{what} in `{text}`"));
    let mut rest = text.as_str();
    let mut guard = None;
    if let Some(after) = rest.strip_prefix('@') {
        let (name, after) = after
            .split_once(' ')
            .ok_or_else(|| fail("bad guard predicate".into()))?;
        let (negated, name) = match name.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let register = scopes
            .register(name)
            .ok_or_else(|| fail(format!("unknown predicate {name}")))?;
        guard = Some((register, negated));
        rest = after.trim_start();
    }
    let name_char = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | ':');
    let end = rest.find(|c| !name_char(c)).unwrap_or(rest.len());
    let (name, arguments) = rest.split_at(end);
    let mut parts = name.split('.');
    let opcode = Opcode::parse(parts.next().unwrap_or(""));
    let mods = parse_modifiers(parts.map(str::to_string).collect());
    let types: Vec<PtxType> = mods.types().collect();
    let ty = types.last().copied().unwrap_or(PtxType::B32);
    let dest_ty = types.iter().rev().nth(1).copied().unwrap_or(ty);
    let mut call = None;
    let mut operands = Vec::new();
    if opcode == Opcode::Call {
        call = Some(Box::new(parse_call(arguments, scopes).map_err(fail)?));
    } else {
        for word in split_top_level(arguments, ',') {
            let operand = match tables.get(&word) {
                Some(labels) if opcode == Opcode::BrxIdx => {
                    let labels = labels.iter().filter_map(|l| scopes.label(l));
                    Operand::Vector(labels.map(Operand::Label).collect())
                }
                _ => parse_operand(&word, scopes).map_err(fail)?,
            };
            operands.push(operand);
        }
    }
    Ok(Instruction {
        guard,
        opcode,
        mods,
        ty,
        dest_ty,
        operands,
        call,
        text: text.clone(),
        ptx_line,
        source,
    })
}

/// `(results), target, (arguments)`, each part in parentheses optional.
fn parse_call(text: &str, scopes: &mut Scopes) -> Result<CallSite, String> {
    let mut parts = split_top_level(text, ',').into_iter().peekable();
    let list = |word: &str, scopes: &mut Scopes| -> Result<Vec<ParamSlot>, String> {
        let inside = word.trim_start_matches('(').trim_end_matches(')');
        let names = split_top_level(inside, ',');
        names.iter().map(|n| call_slot(n, scopes)).collect()
    };
    let results = match parts.next_if(|p| p.starts_with('(')) {
        Some(word) => list(&word, scopes)?,
        None => Vec::new(),
    };
    let target = parts.next().ok_or("call without a target")?;
    let arguments = match parts.next_if(|p| p.starts_with('(')) {
        Some(word) => list(&word, scopes)?,
        None => Vec::new(),
    };
    let target = match scopes.register(&target) {
        Some(_) => CallTarget::Indirect,
        None => call_target(target, scopes.module),
    };
    Ok(CallSite {
        target,
        results,
        arguments,
    })
}

fn call_target(name: String, module: &Module) -> CallTarget {
    match (name.as_str(), module.by_name.get(&name)) {
        (_, Some(&index)) => CallTarget::Function(index),
        ("vprintf", None) => CallTarget::Printf,
        ("__assertfail" | "__assert_fail", None) => CallTarget::AssertFail,
        _ => CallTarget::Undefined(name),
    }
}

fn call_slot(name: &str, scopes: &mut Scopes) -> Result<ParamSlot, String> {
    match scopes.symbol(name) {
        Some(Operand::Local(offset)) => Ok(ParamSlot { offset, bytes: 0 }),
        _ => Err(format!("call argument `{name}` is not a .param variable")),
    }
}

fn parse_modifiers(list: Vec<String>) -> Modifiers {
    let mut mods = Modifiers::default();
    for word in &list {
        match word.split("::").next().unwrap_or("") {
            "ftz" => mods.ftz = true,
            "sat" => mods.sat = true,
            "relu" => mods.relu = true,
            "NaN" => mods.nan = true,
            "wide" => mods.wide = true,
            "hi" if mods.compare.is_none() => mods.hi = true,
            "volatile" | "relaxed" | "acquire" | "release" | "acq_rel" => mods.volatile = true,
            "rz" | "rzi" => mods.rounding = Rounding::Zero,
            "rm" | "rmi" => mods.rounding = Rounding::Down,
            "rp" | "rpi" => mods.rounding = Rounding::Up,
            "global" | "const" if mods.space == Space::Generic => mods.space = Space::Global,
            "shared" if mods.space == Space::Generic => mods.space = Space::Shared,
            "local" if mods.space == Space::Generic => mods.space = Space::Local,
            "param" if mods.space == Space::Generic => mods.space = Space::Param,
            _ => {}
        }
        if mods.compare.is_none() {
            mods.compare = compare(word);
        }
    }
    mods.list = list;
    mods
}

fn compare(word: &str) -> Option<Compare> {
    Some(match word {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" | "lo" => Compare::Lt,
        "le" | "ls" => Compare::Le,
        "gt" | "hi" => Compare::Gt,
        "ge" | "hs" => Compare::Ge,
        "equ" => Compare::Equ,
        "neu" => Compare::Neu,
        "ltu" => Compare::Ltu,
        "leu" => Compare::Leu,
        "gtu" => Compare::Gtu,
        "geu" => Compare::Geu,
        "num" => Compare::Num,
        "nan" => Compare::Nan,
        _ => return None,
    })
}
